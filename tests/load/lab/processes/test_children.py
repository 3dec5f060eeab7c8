"""The processes of experiments: an end that is too early or wrong is noticed at once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection

import psutil
import pytest

from echo_load.errors import LoadError
from echo_load.lab.processes.children import METHODS, connected, context_of, join
from echo_load.lab.processes.output import read_until_ended
from echo_load.lab.processes.starts import seconds_to_start_and_join
from support.children import answer, end_early, fail, fail_early
from support.labs import experiment_of, outcome_of, started
from support.processes import until


@pytest.mark.parametrize("method", METHODS)
def test_a_process_that_fails_gives_no_time_to_start(method: str) -> None:
    with pytest.raises(LoadError, match="a process ended with exit code 7"):
        seconds_to_start_and_join(partial(context_of(method).Process, target=fail))


def test_a_thread_and_a_process_that_end_well_give_one() -> None:
    assert seconds_to_start_and_join(partial(threading.Thread, target=int)) > 0
    assert seconds_to_start_and_join(partial(context_of("fork").Process, target=int)) > 0


@pytest.mark.parametrize(
    ("target", "said"),
    [(fail_early, "a process ended with exit code 7"), (end_early, "a process ended too early")],
)
def test_an_end_early_the_other_end_of_a_pipe_is_noticed(
    target: Callable[[Connection], None], said: str
) -> None:
    with pytest.raises(LoadError, match=said):
        exchange_with(target)


def exchange_with(target: Callable[[Connection], None]) -> None:
    with connected(context_of("spawn"), target) as end:
        end.send_bytes(b"1")
        end.recv_bytes()


def test_a_process_ends_with_its_pipe() -> None:
    with connected(context_of("spawn"), answer) as end:
        end.send_bytes(b"1")
        assert end.recv_bytes() == b"1"
    assert multiprocessing.active_children() == []


def write_and_fail(pipe: int) -> None:
    """Write to a pipe, and fail."""
    os.write(pipe, b"some")
    os._exit(7)


def test_a_writer_that_fails_is_noticed_while_another_one_waits() -> None:
    context = context_of("fork")
    reading, writing = os.pipe()
    never = context.Event()
    writers = [
        context.Process(target=never.wait, daemon=True),
        context.Process(target=write_and_fail, args=(writing,), daemon=True),
    ]
    for writer in writers:
        writer.start()
    os.close(writing)
    try:
        with pytest.raises(LoadError, match="a process ended with exit code 7"):
            read_until_ended(reading, writers)
        assert writers[0].is_alive()
    finally:
        os.close(reading)
        never.set()
        join(writers[0])


def is_spawned(process: psutil.Process) -> bool:
    return any("spawn_main" in part for part in process.cmdline())


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_experiment_whose_process_was_killed_says_so(number: int) -> None:
    """The processes are those of the queues, of the pipe, and of the shared memory."""
    with started("process-exchange", "--json") as lab:
        experiment = until(lambda: experiment_of(lab), "the experiment")
        seen: list[psutil.Process] = []

        def nth() -> bool:
            seen.extend(one for one in experiment.children() if one not in seen and is_spawned(one))
            return len(seen) == number

        until(nth, "the process")
        seen[-1].send_signal(signal.SIGKILL)
        outcome = outcome_of(lab)
    assert (outcome["verdict"], outcome["statement"]) == (
        "broke",
        "LoadError: a process ended with exit code -9",
    )
