"""Tests run from Python in odd surroundings: threads, event loops, scripts without a guard."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from echo_core.errors import InvalidValueError
from echo_load.limits.capacity import find_capacity
from echo_load.limits.capacity_plan import CapacityPlan
from echo_load.limits.idle import find_idle
from echo_load.limits.idle_plan import IdlePlan
from echo_load.limits.watch import WatchPlan, watch
from echo_load.plan.plan import Plan
from echo_load.runner.controller import Interruption, run
from echo_load.runner.observer import Observer, Progress
from support.processes import DEADLINE, StartServer, environment
from support.processes import run as run_program

GUARD = 'put the call under `if __name__ == "__main__":`, as multiprocessing requires'

UNGUARDED = """
import sys
from echo_load import Plan, run

print("imported as", __name__)
result = run(Plan(targets=sys.argv[1], messages=100, connections=2, processes=2))
"""

# What `asyncio.run` does at the top level of a script.
UNGUARDED_LOOP = """
import asyncio, sys
from echo_load import Plan, run

plan = Plan(targets=sys.argv[1], messages=100, connections=2)
asyncio.run(asyncio.to_thread(run, plan))
"""

OWN_PROCESS = """
import multiprocessing, sys
from echo_load import EchoswarmError, Plan, run

def nothing():
    pass

if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=nothing)
    process.start()
    process.join()
else:
    try:
        run(Plan(messages=1))
    except EchoswarmError as error:
        print(error)
"""

INTERRUPTED = """
import multiprocessing, os, sys
from pathlib import Path
from typing import Any
from echo_load import Observer, Plan, run

class Announcing(Observer):
    def progressed(self, progress):
        if progress.phase == "running":
            print("running", flush=True)

def children():
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()

if __name__ == "__main__":
    # The tracker of multiprocessing's resources, which stays.
    assert run(Plan(messages=10, connections=2)).passed
    before = children()
    try:
        run(Plan(duration="1h"), observer=Announcing())
    except KeyboardInterrupt:
        print("interrupted")
    assert not multiprocessing.active_children()
    assert children() == before, (children(), before)
    assert run(Plan(messages=10, connections=2)).passed
    print("passed", flush=True)
"""


def ended(script: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    script.write_text(code)
    return run_program([sys.executable, str(script), *arguments])


@pytest.mark.slow
@pytest.mark.parametrize("code", [UNGUARDED, UNGUARDED_LOOP], ids=["script", "event loop"])
def test_a_script_without_a_guard_is_told_so(
    code: str, start_server: StartServer, tmp_path: Path
) -> None:
    process = ended(tmp_path / "script.py", code, start_server().url)
    errors = process.stderr.decode()
    assert process.returncode == 1
    assert errors.splitlines()[-1].startswith("echo_load.errors.GeneratorError: the script runs")
    assert errors.splitlines()[-1].endswith(GUARD)
    # The generators print none.
    assert errors.count("Traceback (most recent call last)") - errors.count("direct cause") == 1


@pytest.mark.slow
def test_a_process_that_imports_its_script_is_told_so(tmp_path: Path) -> None:
    process = ended(tmp_path / "script.py", OWN_PROCESS)
    assert process.stdout.decode().strip().endswith(GUARD)
    assert (process.returncode, process.stderr) == (0, b"")


@pytest.mark.slow
def test_what_is_no_script_needs_no_guard(start_server: StartServer) -> None:
    code = UNGUARDED.replace("sys.argv[1]", repr(start_server().url)) + "print(result.passed)"
    process = run_program([sys.executable, "-c", code])
    assert (process.returncode, process.stderr) == (0, b"")
    assert process.stdout == b"imported as __main__\nTrue\n"


def test_a_script_from_standard_input_is_told_so() -> None:
    process = run_program(
        [sys.executable, "-"], stdin=UNGUARDED.replace("sys.argv[1]", "()").encode()
    )
    assert process.returncode == 1
    assert process.stderr.decode().splitlines()[-1] == (
        "echo_load.errors.GeneratorError: generators import the script of this process, but "
        "<stdin> is not a file; save the script to one, or use python -c"
    )


@pytest.mark.slow
def test_an_interrupted_test_leaves_nothing_behind(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED)
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"running\n"
            # As Ctrl-C does, to all processes of the terminal.
            os.killpg(process.pid, signal.SIGINT)
            out, errors = process.communicate(timeout=DEADLINE)
        finally:
            if process.poll() is None:
                process.kill()
    assert (process.returncode, errors) == (0, b"")
    assert out.decode().splitlines()[-2:] == ["interrupted", "passed"]


@pytest.mark.slow
def test_tests_run_in_several_threads_at_once(start_server: StartServer) -> None:
    before = dict(os.environ)
    plan = Plan(targets=start_server().url, connections=3, messages=300, processes=1)
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(run, [plan] * 4))
    assert [(one.passed, one.totals.messages) for one in results] == [(True, 300)] * 4
    assert dict(os.environ) == before


def test_only_the_main_thread_handles_signals(start_server: StartServer) -> None:
    target = Plan(targets=start_server().url)
    with ThreadPoolExecutor(1) as threads:
        for future in (
            threads.submit(run, target, handle_signals=True),
            threads.submit(find_idle, IdlePlan(plan=target), handle_signals=True),
            threads.submit(watch, WatchPlan(plan=target), handle_signals=True),
            threads.submit(find_capacity, CapacityPlan(plan=target), handle_signals=True),
        ):
            with pytest.raises(InvalidValueError, match=r"^`handle_signals` needs the main"):
                future.result(DEADLINE)


class Stopping(Observer):
    """An observer that stops a test from another thread, once it runs."""

    def __init__(self) -> None:
        self.interruption = Interruption()

    def progressed(self, progress: Progress) -> None:
        if progress.phase == "running":
            thread = threading.Thread(target=self._stop)
            thread.start()
            thread.join()

    def _stop(self) -> None:
        self.interruption.requested = True


@pytest.mark.slow
def test_a_test_is_stopped_from_another_thread(start_server: StartServer) -> None:
    target = Plan(targets=start_server().url, connections=2)
    stops = [Stopping() for _ in range(4)]
    given: list[dict[str, Any]] = [
        {"observer": one, "interruption": one.interruption} for one in stops
    ]
    results = (
        run(Plan(targets=target.targets, duration="1h"), **given[0]),
        find_capacity(CapacityPlan(plan=target, duration="1h"), **given[1]),
        find_idle(IdlePlan(plan=target, up_to="1h"), **given[2]),
        watch(WatchPlan(plan=Plan(targets=target.targets, duration="1h")), **given[3]),
    )
    assert [one.verdict for one in results] == ["interrupted"] * 4


@pytest.mark.parametrize("function", [run, find_capacity, find_idle, watch])
def test_only_plans_are_run(function: object) -> None:
    assert callable(function)
    with pytest.raises(InvalidValueError, match=r"plan` cannot be of type str; give an? \w*Plan$"):
        function("tcp://127.0.0.1:50007")


TARGET = Plan(targets="tcp://127.0.0.1:9")
FUNCTIONS: list[tuple[Callable[..., Any], object]] = [
    (run, TARGET),
    (find_capacity, CapacityPlan(plan=TARGET)),
    (find_idle, IdlePlan(plan=TARGET)),
    (watch, WatchPlan(plan=TARGET)),
]
WANTED = {"observer": "an Observer", "interruption": "an Interruption", "reconcile": "text"}


@pytest.mark.parametrize(
    ("function", "plan", "name"),
    [
        (function, plan, name)
        for function, plan in FUNCTIONS
        for name in WANTED
        if name in inspect.signature(function).parameters
    ],
)
def test_other_arguments_of_a_wrong_type_are_refused(
    function: Callable[..., Any], plan: object, name: str
) -> None:
    said = f"^`{name}` cannot be of type int; give {WANTED[name]}"
    for value in (5, 0):
        with pytest.raises(InvalidValueError, match=said):
            function(plan, **{name: value})
