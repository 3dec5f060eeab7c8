"""`echo-load lab`: every experiment runs; what it prints and writes; what goes wrong."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from echo_load.lab.catalogue import chapters
from support.labs import LAB, Traces, experiment_of, is_running, limited_outcomes, outcomes, started
from support.processes import LOAD, descriptor_limit, environment, run, until

NAMES = [one.name for chapter in chapters() for one in chapter.experiments]

# These need the machine for themselves, or there is no moment at which they can be watched.
ALONE = {"servers", "clients"}

# How long the machine stands still in a test: longer than a resource tracker is waited for.
STILL_SECONDS = 2.5


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.alone if name in ALONE else ()) for name in NAMES],
)
def test_every_experiment_runs(name: str) -> None:
    (outcome,) = outcomes("--quick", name)
    assert outcome["verdict"] in {"holds", "holds within a limit", "does not hold"}, outcome
    assert outcome["statement"]
    assert outcome["figures"]
    for measurement in outcome["figures"]:
        assert measurement["low"] <= measurement["median"] <= measurement["high"]


def test_the_list_names_all() -> None:
    ended = run([*LOAD, "lab", "list"])
    assert (ended.returncode, ended.stderr) == (0, b"")
    lines = ended.stdout.decode().splitlines()
    listed = [line.split()[0] for line in lines if line.startswith("  ") and line[2:3].strip()]
    assert listed == NAMES


@pytest.mark.slow
def test_chapters_and_experiments_are_run_in_the_order_of_the_tutorial(tmp_path: Path) -> None:
    file, page = tmp_path / "lab.json", tmp_path / "lab.html"
    ended = run([*LAB, "--quick", "timer", "queues", "-o", str(file), "--html", str(page)])
    assert ended.returncode == 0
    kept = json.loads(file.read_bytes())
    names = ["timer", "queue-orders", "queue-bounds", "queue-join"]
    assert [one["name"] for one in kept["experiments"]] == names
    assert kept["quick"] is True
    assert kept["machine"]["python"]
    shown = ended.stdout.decode()
    assert [shown.index(f"  {name}\n") for name in names] == sorted(
        shown.index(f"  {name}\n") for name in names
    )
    assert shown.rstrip().endswith("4 hold.")
    text = page.read_text()
    assert all(f'id="{name}"' in text for name in names)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "lok"], "'lok' is not an experiment; did you mean lock?"),
        (["run", "?"], "'?' is not an experiment; `echo-load lab list` lists them"),
        (["run", "lock", "-o", "/nowhere/x"], "cannot write /nowhere/x: No such file or directory"),
        (["run", "lock", "--html", "-"], "- is not a file; use --json to print the result"),
        (["run", "lock", "-o", "/tmp", "--json"], "'/tmp' is a directory"),
        (["list", "lock"], "unexpected extra argument"),
        (["measure"], "No such command 'measure'"),
    ],
)
def test_bad_input_is_refused_in_one_line_that_names_it(arguments: list[str], said: str) -> None:
    ended = run([*LOAD, "lab", *arguments])
    (line,) = ended.stderr.decode().splitlines()
    assert (ended.returncode, ended.stdout) == (2, b"")
    assert said in line


def little_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))


@pytest.mark.parametrize(
    ("name", "limit", "said"),
    [
        ("thread-start", little_memory, "can't start new thread"),
        ("process-exchange", descriptor_limit(12), "Too many open files"),
        (
            *("process-start", descriptor_limit(12)),
            "too few descriptors to start a process: the limit is 12 (ulimit -n)",
        ),
    ],
)
def test_what_cannot_run_here_says_so_and_does_not_hold(
    name: str, limit: Callable[[], None], said: str
) -> None:
    (outcome,) = limited_outcomes(limit, name)
    assert (outcome["verdict"], outcome["statement"]) == ("cannot run here", said)


def test_a_program_that_fails_gives_no_figure() -> None:
    (outcome,) = limited_outcomes(descriptor_limit(16), "pool-join")
    assert (outcome["verdict"], outcome["statement"]) == (
        "broke",
        "LoadError: the program failed: OSError: [Errno 24] Too many open files",
    )
    assert outcome["figures"] == []


@pytest.mark.parametrize("name", ["manager", "process-start"])
def test_a_long_path_of_temporary_files_is_no_obstacle(name: str, tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 70)
    folder.mkdir()
    ended = run([*LAB, "--quick", "--json", name], TMPDIR=str(folder))
    (outcome,) = json.loads(ended.stdout)["experiments"]
    # On a busy machine the claim may not hold.
    assert outcome["verdict"] in {"holds", "does not hold"}, outcome
    assert outcome["figures"]


def one_core() -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])


def test_cores_need_two() -> None:
    ended = subprocess.run(
        [*LAB, "--quick", "cores"],
        capture_output=True,
        preexec_fn=one_core,
        env=environment(),
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0
    assert "has one core" in ended.stdout.decode()
    assert ended.stdout.decode().rstrip().endswith("1 cannot run here.")


@pytest.mark.slow
def test_an_experiment_that_breaks_is_a_failure() -> None:
    with started("switch-cost", "timer", "--json") as lab:
        experiment = until(lambda: experiment_of(lab), "an experiment")
        experiment.kill()
        out, _ = lab.communicate(timeout=60)
    assert lab.returncode == 1
    first, second = json.loads(out)["experiments"]
    assert (first["verdict"], first["statement"]) == (
        "broke",
        "its process ended with exit code -9",
    )
    assert second["verdict"] == "holds"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_at_once_and_shows_what_was_measured(
    number: signal.Signals, tmp_path: Path
) -> None:
    file = tmp_path / "lab.json"
    with started("timer", "servers", "-o", str(file)) as lab:
        assert lab.stdout is not None
        shown = [lab.stdout.readline(), lab.stdout.readline()]
        # What the timers came to has been printed; the next one takes minutes.
        experiment = until(lambda: experiment_of(lab), "the next experiment")
        until(experiment.children, "its server")
        below = experiment.children(recursive=True)
        lab.send_signal(number)
        out, err = lab.communicate(timeout=60)
    text = (b"".join(shown) + out).decode()
    assert lab.returncode == 130, err
    assert "holds  timer" in text
    assert "interrupted  servers" in text
    first, second = json.loads(file.read_bytes())["experiments"]
    assert (first["verdict"], second["verdict"]) == ("holds", "interrupted")
    until(lambda: not any(map(is_running, [experiment, *below])), "the end of all")


def test_nothing_else_imports_it() -> None:
    program = (
        "import sys, echo_load.cli, echo_load.commands.run, echo_load.runner.controller;"
        "print([name for name in sys.modules if name.startswith('echo_load.lab')])"
    )
    ended = run([sys.executable, "-c", program])
    assert (ended.returncode, ended.stdout) == (0, b"[]\n"), ended.stderr


@pytest.fixture
def traces() -> Iterator[Traces]:
    # The path of a unix socket below tmp_path would be too long.
    with tempfile.TemporaryDirectory() as folder:
        yield Traces(Path(folder))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_remains_after_a_run_was_ended(number: signal.Signals, traces: Traces) -> None:
    with started("process-exchange", **traces.settings) as lab:
        until(traces.in_use, "semaphores that are used")
        lab.send_signal(number)
        lab.communicate(timeout=60)
    until(lambda: not traces.without_names(), "the end of all")
    traces.check_names_removed()


def test_nothing_remains_after_a_second_interruption(traces: Traces) -> None:
    with started("process-exchange", **traces.settings) as lab:
        until(traces.in_use, "semaphores that are used")
        until(lambda: interrupted(lab), "the end")
        lab.communicate(timeout=60)
    assert lab.returncode == 130
    until(lambda: not traces.without_names(), "the end of all")
    traces.check_names_removed()


def interrupted(lab: subprocess.Popen[bytes]) -> bool:
    """Interrupt a run unless it has ended."""
    lab.send_signal(signal.SIGINT)
    return lab.poll() is not None


def test_nothing_remains_after_an_experiment_that_broke(traces: Traces) -> None:
    with started("process-exchange", **traces.settings) as lab:
        until(traces.in_use, "semaphores that are used")
        experiment = experiment_of(lab)
        assert experiment is not None
        experiment.kill()
        lab.communicate(timeout=60)
    assert lab.returncode == 1
    assert traces.without_names() == []
    traces.check_names_removed()


@pytest.mark.slow
def test_nothing_remains_where_the_machine_stands_still_at_the_end(traces: Traces) -> None:
    with started("process-exchange", **traces.settings) as lab:
        until(traces.in_use, "semaphores that are used")
        experiment = experiment_of(lab)
        assert experiment is not None
        tracker, others = tracker_and_others(experiment)
        tracker.suspend()
        experiment.kill()
        # The run has begun to end what the experiment started, and waits for the tracker.
        until(lambda: not any(map(is_running, others)), "the end of the others")
        lab.send_signal(signal.SIGSTOP)
        time.sleep(STILL_SECONDS)
        lab.send_signal(signal.SIGCONT)
        tracker.resume()
        lab.communicate(timeout=60)
    assert lab.returncode == 1
    assert traces.without_names() == []
    traces.check_names_removed()


def tracker_and_others(
    experiment: psutil.Process,
) -> tuple[psutil.Process, list[psutil.Process]]:
    """Return the resource tracker that an experiment has started, and the others."""
    children = experiment.children(recursive=True)
    (tracker,) = (one for one in children if "resource_tracker" in " ".join(one.cmdline()))
    return tracker, [one for one in children if one != tracker]


def test_nothing_remains_after_a_run(traces: Traces) -> None:
    with started("--quick", "process-exchange", **traces.settings) as lab:
        lab.communicate(timeout=60)
    assert lab.returncode == 0
    assert traces.without_names() == []
    traces.check_names_removed()
