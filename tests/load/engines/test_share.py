"""A generator's share of a test."""

from __future__ import annotations

import os
from dataclasses import replace

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
