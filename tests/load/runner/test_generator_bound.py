"""The self-check finds a starved generator, and no other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import pytest

from echo_load.runner.selfcheck import LATENESS_US
from support.idle_round_trips import IdleRoundTrips
from support.known_delays import KnownDelays
from support.processes import DEADLINE, LOAD, environment

pytestmark = pytest.mark.alone

BURN = (sys.executable, "-S", "-c", "while True: pass")
# With these, a process gets a third of its core.
BURNERS = 2
ATTEMPTS = 10


def generated(target: str, *arguments: str, core: int | None = None) -> Any:
    """Return the field `generator` of a result; with `core`, the run has only that core."""

    def pin() -> None:
        if core is not None:
            os.sched_setaffinity(0, {core})

    ended = subprocess.run(
        [*LOAD, "run", target, *arguments, "--json"],
        capture_output=True,
        timeout=DEADLINE,
        check=False,
        env=environment(),
        preexec_fn=pin,
    )
    assert ended.returncode == 0, ended.stderr.decode()
    return json.loads(ended.stdout)["generator"]


@contextmanager
def burning(core: int) -> Iterator[None]:
    """Run programs that keep a core busy."""
    with ExitStack() as stack:
        for _ in range(BURNERS):
            burner = stack.enter_context(
                subprocess.Popen(BURN, preexec_fn=lambda: os.sched_setaffinity(0, {core}))
            )
            stack.callback(burner.kill)
        yield


STARVED = [
    pytest.param(["--engine", "hub", "-c", "20", "--rate", "5000"], id="hub"),
    pytest.param(["--engine", "threads", "-c", "20"], id="threads"),
]


@pytest.mark.parametrize("load", STARVED)
def test_a_starved_generator_is_detected(load: Sequence[str]) -> None:
    core = max(os.sched_getaffinity(0))
    with KnownDelays() as service, burning(core):
        generator = generated(service.target, *load, "-d", "1s", core=core)
    assert generator["bound"]
    *findings, advice = generator["findings"]
    assert any("waited for a processor" in finding for finding in findings), findings
    assert advice
    assert generator["waited_seconds"] > 0.1


def said_without_cause(service: KnownDelays, *arguments: str) -> list[str]:
    """Return the findings of a generator with time to spare that this machine did not cause.

    A machine that wakes two idle programs late also wakes a generator late, which is a finding.
    """
    with service, IdleRoundTrips() as idle:
        generator = generated(service.target, *arguments)
        round_trips = sorted(idle.nanoseconds())
    assert generator["bound"] == bool(generator["findings"])
    late_us = round_trips[int(0.99 * len(round_trips))] / 1e3
    caused = late_us >= LATENESS_US and generator["lateness_us"]["p99"] < 10 * late_us
    return [] if caused else list(generator["findings"])


@pytest.mark.parametrize(
    ("service", "arguments"),
    [
        pytest.param(KnownDelays, ["-c", "2", "--rate", "50"], id="idle"),
        # Messages that are due while no connection is free leave late because of the target.
        pytest.param(
            partial(KnownDelays, stall=0.3, period=0.6), ["-c", "1", "--rate", "100"], id="stalled"
        ),
    ],
)
def test_a_generator_with_time_to_spare_is_not_the_bottleneck(
    service: Callable[[], KnownDelays], arguments: Sequence[str]
) -> None:
    """Another program may disturb the generator, but not every time."""
    findings = []
    for _ in range(ATTEMPTS):
        found = said_without_cause(service(), *arguments, "-d", "1s")
        if not found:
            return
        findings += found
    pytest.fail(f"bound: {findings}")
