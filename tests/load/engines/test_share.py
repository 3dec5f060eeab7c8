"""A generator's share of a test."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest

from echo_client.addresses import resolve
from echo_core.endpoint import Endpoint
from echo_load.engines.share import Share
from echo_load.plan.plan import Plan

TARGET = "tcp://127.0.0.1:9"


def test_generators_that_share_cores_wake_up_less_often() -> None:
    share = Share.alone(Plan(targets=(TARGET,)), [resolve(Endpoint.parse(TARGET))])
    cores = len(os.sched_getaffinity(0))
    assert share.tick_seconds == replace(share, generators=cores).tick_seconds == 0.01
    assert replace(share, generators=30 * cores).tick_seconds == pytest.approx(0.3)
    assert replace(share, generators=30 * cores, core=0).tick_seconds == 0.01


@pytest.mark.parametrize("timeouts", [{"timeout": "1s"}, {"connect_timeout": "1s"}])
def test_generators_that_share_cores_notice_timeouts_in_time(timeouts: dict[str, Any]) -> None:
    """Replies count as late only from the first periodic work after their timeout."""
    plan = Plan(targets=(TARGET,), **timeouts)
    share = Share.alone(plan, [resolve(Endpoint.parse(TARGET))])
    many = replace(share, generators=30 * len(os.sched_getaffinity(0)))
    assert many.tick_seconds == pytest.approx(0.1)
    short = replace(plan, timeout=0.02)
    assert replace(many, plan=short).tick_seconds == 0.01
