"""Observers of a run in progress."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from echo_core.endpoint import Endpoint
from echo_load.plan.plan import Plan
from echo_load.results.idle import IdleResult
from echo_load.results.result import Result, StageResult
from echo_load.results.watch import WatchResult
from echo_load.runner.processes import Phase
from echo_load.runner.tally import Tally


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a run.

    Attributes:
        part: number of the current part (stages that share their connections), from 1.
        parts: number of parts in all repeats.
        phase: phase of the part.
        elapsed: seconds since the first message of the part, or of its warm-up, was due.
        tally: figures of the part so far.
        watch: answer of a watch so far; None for any other test.
        idle: answer of a search for an idle timeout so far; None for any other test.
    """

    part: int
    parts: int
    phase: Phase
    elapsed: float
    tally: Tally
    watch: WatchResult | None = None
    idle: IdleResult | None = None


class Observer:
    """The base class of observers of a run, whose methods do nothing."""

    def started(self, plan: Plan, targets: Sequence[Endpoint], processes: int) -> None:
        """Handle the start, when the targets are known and nothing has been sent."""

    def progressed(self, progress: Progress) -> None:
        """Handle the current progress, several times per second."""

    def measured(self, repeat: int, stages: Sequence[StageResult]) -> None:
        """Handle the end of a part of a repeat, with the results of its stages."""

    def ended(self, result: Result) -> None:
        """Handle the end of the run."""


class Observers(Observer):
    """Several observers as one.

    Args:
        observers: the observers, called in this order.
    """

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def started(self, plan: Plan, targets: Sequence[Endpoint], processes: int) -> None:
        """Call `started` of all observers."""
        for one in self._observers:
            one.started(plan, targets, processes)

    def progressed(self, progress: Progress) -> None:
        """Call `progressed` of all observers."""
        for one in self._observers:
            one.progressed(progress)

    def measured(self, repeat: int, stages: Sequence[StageResult]) -> None:
        """Call `measured` of all observers."""
        for one in self._observers:
            one.measured(repeat, stages)

    def ended(self, result: Result) -> None:
        """Call `ended` of all observers."""
        for one in self._observers:
            one.ended(result)
