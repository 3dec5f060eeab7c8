"""Runs experiments, each in a process of its own, one after the other."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from echo_load.lab.experiment import Chapter, Experiment, Figure, Figures
from echo_load.lab.outcome import Outcome, Status

# How often an interruption is looked for.
_POLL_SECONDS = 0.1


class Laboratory:
    """Runs experiments one after the other.

    Args:
        quick: with smaller numbers and fewer repeats.
        is_interrupted: asked again and again whether to break off.
    """

    def __init__(self, *, quick: bool, is_interrupted: Callable[[], bool]) -> None:
        self._scale = "quick" if quick else "full"
        self._is_interrupted = is_interrupted
        self._running: _Process | None = None

    def outcomes(
        self,
        chosen: Sequence[tuple[Chapter, Experiment]],
        began: Callable[[Experiment], None],
    ) -> Iterator[Outcome]:
        """Run experiments and yield what became of each; an interrupted one is the last.

        Args:
            chosen: the experiments, and their chapters.
            began: called when one begins.
        """
        for chapter, experiment in chosen:
            if self._is_interrupted():
                return
            began(experiment)
            yield self._run(chapter, experiment)

    def kill(self) -> None:
        """End the experiment that is running, at once."""
        if self._running is not None:
            self._running.kill()

    def _run(self, chapter: Chapter, experiment: Experiment) -> Outcome:
        started = time.monotonic()
        figures = Figures()
        with _Process(chapter.name, experiment.name, self._scale) as process:
            self._running = process
            failure = self._measure(process, experiment, figures)
        self._running = None
        status, statement = failure or experiment.judge(figures)
        seconds = time.monotonic() - started
        return Outcome(chapter, experiment, figures, status, statement, seconds)

    def _measure(
        self, process: _Process, experiment: Experiment, figures: Figures
    ) -> tuple[Status, str] | None:
        """Collect the figures of an experiment; return why it did not come to its end, if so."""
        deadline = time.monotonic() + experiment.seconds
        for line in process.lines(_POLL_SECONDS):
            if self._is_interrupted():
                return "interrupted", "it was interrupted"
            if time.monotonic() > deadline:
                return "broke", f"it was not done within {experiment.seconds:.0f} s"
            if not line:
                continue
            said = json.loads(line)
            if "figure" in said:
                figures.add(Figure(**{**said["figure"], "values": tuple(said["figure"]["values"])}))
            elif "cannot_run" in said:
                return "cannot run here", said["cannot_run"]
            else:
                return None
        return "broke", process.failure()


class _Process:
    """The process of an experiment, with all that it starts; a context manager that ends them.

    It has a session of its own, so that Ctrl-C at the terminal does not reach it, and all of it can
    be ended at once.
    """

    def __init__(self, chapter: str, name: str, scale: str) -> None:
        self._errors = os.fdopen(os.memfd_create("experiment-errors"), "w+b")
        self._process = subprocess.Popen(
            # -P: a module of the current folder is not one of ours.
            [sys.executable, "-P", "-m", "echo_load.lab", chapter, name, scale],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._output = self._process.stdout

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.kill()
        self._output.close()
        self._errors.close()

    def lines(self, seconds: float) -> Iterator[bytes]:
        """Yield each line that it writes, and an empty one after so long without any."""
        poll = select.poll()
        poll.register(self._output, select.POLLIN)
        unfinished = b""
        while True:
            if not poll.poll(seconds * 1e3):
                yield b""
                continue
            read = os.read(self._output.fileno(), 65536)
            if not read:
                return
            *lines, unfinished = (unfinished + read).split(b"\n")
            yield from lines

    def failure(self) -> str:
        """Return how it ended, after its output has."""
        code = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="backslashreplace").strip().splitlines()
        return said[-1] if said else f"its process ended with exit code {code}"

    def kill(self) -> None:
        """End it and all that it started, at once."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
