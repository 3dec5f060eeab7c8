"""Prometheus's configuration and alert rules, checked by its own tool."""

from __future__ import annotations

from pathlib import Path

import pytest

from containers.conftest import Images
from support.docker import ROOT, docker

CHECKS = {
    "check config": "/etc/prometheus/prometheus.yml",
    "check rules": "/etc/prometheus/alerts.yml",
    "test rules": "/tests/alerts_test.yml",
}


@pytest.mark.parametrize("check", CHECKS)
def test_promtool_finds_no_errors(images: Images, check: str) -> None:
    said = docker(
        *("run", "--rm", "--entrypoint", "promtool"),
        *("--volume", f"{ROOT}/loadtest/monitoring/prometheus:/etc/prometheus:ro"),
        *("--volume", f"{Path(__file__).parent}:/tests:ro"),
        *(images.prometheus, *check.split(), CHECKS[check]),
    )
    assert "SUCCESS" in said
