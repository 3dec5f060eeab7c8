"""The self-check: a generator that is starved says so, and one that is not does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from support.known_delays import KnownDelays
from support.processes import DEADLINE, LOAD, environment

pytestmark = pytest.mark.alone

BURN = (sys.executable, "-S", "-c", "while True: pass")
# Beside these a process gets a third of its core.
BURNERS = 2
ATTEMPTS = 3


def generated(target: str, *arguments: str, core: int | None = None) -> Any:
    """What a run, on one core only if one is given, says of its generators."""

    def stay() -> None:
        if core is not None:
            os.sched_setaffinity(0, {core})

    ended = subprocess.run(
        [*LOAD, "run", target, *arguments, "--json"],
        capture_output=True,
        timeout=DEADLINE,
        check=False,
        env=environment(),
        preexec_fn=stay,
    )
    assert ended.returncode == 0, ended.stderr.decode()
    return json.loads(ended.stdout)["generator"]


@contextmanager
def burning(core: int) -> Iterator[None]:
    """Programs that want all of a core."""
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
def test_a_starved_generator_says_so(load: Sequence[str]) -> None:
    core = max(os.sched_getaffinity(0))
    with KnownDelays() as service, burning(core):
        generator = generated(service.target, *load, "-d", "1s", core=core)
    assert generator["bound"]
    *findings, advice = generator["findings"]
    assert any("waited for a processor" in finding for finding in findings), findings
    assert advice
    assert generator["waited_seconds"] > 0.1


def test_a_generator_with_time_to_spare_is_not_the_limit() -> None:
    """On a machine that others use as well it may be disturbed; not each time."""
    findings: list[str] = []
    for _ in range(ATTEMPTS):
        with KnownDelays() as service:
            generator = generated(service.target, "-c", "2", "--rate", "50", "-d", "1s")
        assert generator["bound"] == bool(generator["findings"])
        if not generator["bound"]:
            return
        findings += generator["findings"]
    pytest.fail(f"bound: {findings}")


def test_a_target_that_does_not_answer_is_not_taken_for_a_slow_generator() -> None:
    """What is due while no connection is free leaves late, which is the target's doing."""
    for _ in range(ATTEMPTS):
        with KnownDelays(stall=0.3, period=0.6) as service:
            generator = generated(service.target, "-c", "1", "--rate", "100", "-d", "1s")
        if not generator["bound"]:
            return
    pytest.fail(f"bound: {generator['findings']}")
