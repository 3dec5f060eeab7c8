"""The execution of experiments, one after the other, each in a process of its own."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence

from echo_load.lab.experiment import Chapter, Experiment, Measurement, Measurements
from echo_load.lab.experiment_process import ExperimentProcess
from echo_load.lab.outcome import Outcome, Status

# How often an interruption is looked for.
_POLL_SECONDS = 0.1


class Laboratory:
    """A runner of experiments, one after the other.

    Args:
        quick: whether to use smaller numbers and fewer repeats.
        is_interrupted: function that is polled to learn whether to stop.
    """

    def __init__(self, *, quick: bool, is_interrupted: Callable[[], bool]) -> None:
        self._scale = "quick" if quick else "full"
        self._is_interrupted = is_interrupted
        self._running: ExperimentProcess | None = None

    def outcomes(
        self,
        chosen: Sequence[tuple[Chapter, Experiment]],
        began: Callable[[Experiment], None],
    ) -> Iterator[Outcome]:
        """Run experiments and yield the outcome of each; an interrupted one is the last.

        Args:
            chosen: chapters and experiments.
            began: function that is called when an experiment begins.
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
        measurements = Measurements()
        try:
            failure = self._measure(chapter, experiment, measurements)
        except OSError as error:
            # The results of those before it are not to be lost.
            failure = "cannot run here", error.strerror or str(error)
        status, statement = failure or experiment.conclude(measurements)
        seconds = time.monotonic() - started
        return Outcome(chapter, experiment, measurements, status, statement, seconds)

    def _measure(
        self, chapter: Chapter, experiment: Experiment, measurements: Measurements
    ) -> tuple[Status, str] | None:
        """Collect measurements; return why the experiment did not end, or None if it did."""
        try:
            with ExperimentProcess(chapter.name, experiment.name, self._scale) as process:
                self._running = process
                return self._collect(process, experiment.seconds, measurements)
        finally:
            # Not before all has ended: a second interruption may come meanwhile.
            self._running = None

    def _collect(
        self, process: ExperimentProcess, seconds: float, measurements: Measurements
    ) -> tuple[Status, str] | None:
        deadline = time.monotonic() + seconds
        for line in process.lines(_POLL_SECONDS):
            said = json.loads(line) if line else {}
            if "measurement" in said:
                measurements.add(
                    Measurement(
                        **{**said["measurement"], "values": tuple(said["measurement"]["values"])}
                    )
                )
            elif "cannot_run" in said:
                return "cannot run here", said["cannot_run"]
            elif "broke" in said:
                return "broke", said["broke"]
            elif "ended" in said:
                return None
            if self._is_interrupted():
                return "interrupted", "it was interrupted"
            if time.monotonic() > deadline:
                return "broke", f"it was not done within {seconds:.0f} s"
        return "broke", process.failure()
