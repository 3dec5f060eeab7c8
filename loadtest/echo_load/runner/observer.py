"""Observers of a run while it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from echo_core.endpoint import Endpoint
from echo_load.plan.plan import Plan
from echo_load.results.result import Result, StageResult
from echo_load.runner.processes import Phase
from echo_load.runner.tally import (
    Tally,
)


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a run.

    Attributes:
        part: number of the part, from 1: stages that share their connections.
        parts: how many there are, in all repeats.
        phase: what it is doing.
        elapsed: seconds since its first message, or since that of its warm-up.
        tally: its figures so far.
    """

    part: int
    parts: int
    phase: Phase
    elapsed: float
    tally: Tally


class Observer:
    """Hears of a run while it goes on; does nothing by itself."""

    def started(self, plan: Plan, targets: Sequence[Endpoint], processes: int) -> None:
        """It is known what is tested, and nothing has been sent yet."""

    def progressed(self, progress: Progress) -> None:
        """Called several times a second."""

    def measured(self, repeat: int, stages: Sequence[StageResult]) -> None:
        """A part of a repeat has ended, and these are its stages."""

    def ended(self, result: Result) -> None:
        """All has ended."""


class Observers(Observer):
    """Several observers as one.

    Args:
        observers: told in this order.
    """

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def started(self, plan: Plan, targets: Sequence[Endpoint], processes: int) -> None:
        """Tell all."""
        for one in self._observers:
            one.started(plan, targets, processes)

    def progressed(self, progress: Progress) -> None:
        """Tell all."""
        for one in self._observers:
            one.progressed(progress)

    def measured(self, repeat: int, stages: Sequence[StageResult]) -> None:
        """Tell all."""
        for one in self._observers:
            one.measured(repeat, stages)

    def ended(self, result: Result) -> None:
        """Tell all."""
        for one in self._observers:
            one.ended(result)
