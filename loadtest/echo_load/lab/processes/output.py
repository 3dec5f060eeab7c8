"""The output of several processes to one pipe, with a lock and without."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from multiprocessing.connection import wait
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier, Lock

from echo_load.lab.experiment import Conclusion, Experiment, Measurement, Measurements
from echo_load.lab.notation import written
from echo_load.lab.processes.children import DEADLINE, context_of, join, start

_LINES = 2000


def write_lines(
    descriptor: int, letter: str, gate: Barrier, lock: Lock | None, at_once: bool
) -> None:
    """Write lines of one letter, each in one piece or in three, with a lock or without."""
    gate.wait(DEADLINE)
    line = letter * 30
    pieces = [f"{line}\n".encode()] if at_once else [letter.encode() * 15] * 2 + [b"\n"]
    for _ in range(_LINES):
        with lock or nullcontext():
            for piece in pieces:
                os.write(descriptor, piece)


def mix_lines(quick: bool) -> Iterator[Measurement]:
    """Let four processes write lines to one pipe, and count those that are not whole."""
    context = context_of("fork")
    cases = (
        ("in pieces, no lock", None, False),
        ("in pieces, lock", context.Lock(), False),
        ("in one write, no lock", None, True),
    )
    for kind, lock, at_once in cases:
        shares = tuple(_torn(context, lock, at_once) for _ in range(3 if quick else 5))
        yield Measurement("lines not whole", shares, "share", kind)


def _torn(context: SpawnContext, lock: Lock | None, at_once: bool) -> float:
    """Return the share of lines that hold more than one letter, or not all of it."""
    reading, writing = os.pipe()
    gate = context.Barrier(4)
    writers = [
        context.Process(target=write_lines, args=(writing, letter, gate, lock, at_once))
        for letter in "abcd"
    ]
    for writer in writers:
        writer.daemon = True
        start(writer)
    os.close(writing)
    try:
        lines = read_until_ended(reading, writers).splitlines()
    finally:
        os.close(reading)
    whole = sum(len(line) == 30 and len(set(line)) == 1 for line in lines)
    return 1 - whole / (len(writers) * _LINES)


def read_until_ended(pipe: int, writers: Sequence[BaseProcess]) -> bytes:
    """Read what some processes write to a pipe until all of them have ended.

    Raises:
        LoadError: one has failed; the others, which may wait for it, are not waited for.
    """
    running = {writer.sentinel: writer for writer in writers}
    waiting = [pipe, *running]
    parts = []
    while waiting:
        for ready in wait(waiting):
            assert isinstance(ready, int)
            if ready != pipe:
                join(running[ready])
            elif part := os.read(pipe, 65536):
                parts.append(part)
                continue
            waiting.remove(ready)
    return b"".join(parts)


def conclude_lines(measurements: Measurements) -> Conclusion:
    """Conclude that the claim holds if lines mix without the lock and never with it.

    That lines written with one write each do not mix is a limit.
    """
    torn = {one.of: one for one in measurements}
    bare, locked = torn["in pieces, no lock"], torn["in pieces, lock"]
    at_once = torn["in one write, no lock"]
    statement = (
        f"of lines written in three pieces {written(bare.median, 'share')} were broken up without "
        f"the lock and {written(locked.high, 'share')} with it; of lines written with one write of "
        f"less than 4 KiB (PIPE_BUF) {written(at_once.high, 'share')}, without any lock."
    )
    if locked.high or not bare.high:
        return Conclusion("does not hold", statement)
    return Conclusion("holds" if at_once.high else "holds within a limit", statement)


PROCESS_LOCK = Experiment(
    "process-lock",
    "Without the lock output from the different processes is liable to get all mixed up.",
    "Four processes write 2,000 lines each to one pipe: in three pieces with and without a "
    "lock, and in one write without.",
    mix_lines,
    conclude_lines,
)
