"""The periodic work of the hub engine, which is seldom if generators share cores."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import replace
from pathlib import Path

from echo_client.addresses import resolve
from echo_core.endpoint import Endpoint
from echo_load.engines.hub.engine import HubEngine
from echo_load.engines.recorder import Recorder
from echo_load.engines.share import Share
from echo_load.plan.plan import Plan
from support.processes import DEADLINE, StartServer

MANY = 20 * len(os.sched_getaffinity(0))


def test_a_gate_that_opens_before_the_first_periodic_work_is_no_delay(
    start_server: StartServer,
) -> None:
    url = start_server().url
    plan = Plan(targets=url, connections=1, messages=1)
    alone = Share.alone(plan, [resolve(Endpoint.parse(url))])
    # Its periodic work is due every 0.2 seconds.
    share = replace(alone, generators=MANY)
    recorder = Recorder(share.timeline)
    engine = HubEngine(share, recorder)
    begin_ns = time.monotonic_ns()
    engine.open()
    recorder.start(begin_ns)
    engine.start(begin_ns)
    assert engine.join(DEADLINE)
    lag = recorder.times.hub_lag
    assert lag
    assert max(lag) < time.monotonic_ns() - begin_ns


def test_connections_are_not_opened_all_at_once_at_the_beginning(tmp_path: Path) -> None:
    """Delays of the periodic work are caught up, but it has had none."""
    path = tmp_path / "socket"
    url = f"unix://{path}"
    # A connection every 0.1 seconds.
    plan = Plan(targets=url, connections=20 * MANY, connect_rate=10 * MANY)
    alone = Share.alone(plan, [resolve(Endpoint.parse(url))])
    with socket.socket(socket.AF_UNIX) as service:
        service.bind(str(path))
        service.listen()
        share = replace(alone, generators=MANY)
        engine = HubEngine(share, Recorder(share.timeline))
        engine.open()
        opened = engine.counts().opened
        engine.abort()
    assert 1 <= opened < 4
