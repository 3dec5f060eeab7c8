"""The periodic work of the hub engine."""

from __future__ import annotations

import os
import time
from dataclasses import replace

from echo_client.addresses import resolve
from echo_core.endpoint import Endpoint
from echo_load.engines.hub.engine import HubEngine
from echo_load.engines.recorder import Recorder
from echo_load.engines.share import Share
from echo_load.plan.plan import Plan
from support.processes import DEADLINE, StartServer


def test_a_gate_that_opens_before_the_first_periodic_work_is_no_delay(
    start_server: StartServer,
) -> None:
    url = start_server().url
    plan = Plan(targets=url, connections=1, messages=1)
    alone = Share.alone(plan, [resolve(Endpoint.parse(url))])
    # Their periodic work is due every 0.2 seconds.
    share = replace(alone, generators=20 * len(os.sched_getaffinity(0)))
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
