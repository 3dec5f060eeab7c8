"""An experiment: a claim, what is measured to test it, and the verdict that the figures give."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from echo_load.errors import LoadError

# Seconds, bytes, events a second, bytes a second, a share of 1, 1 or 0 for yes or no, a number.
Unit = Literal["s", "B", "1/s", "B/s", "share", "yes/no", ""]
Verdict = Literal["holds", "holds within a limit", "does not hold"]


class CannotRunError(LoadError):
    """An experiment needs what this machine does not have or does not allow."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A quantity that was measured once or several times.

    Attributes:
        name: what was measured: `start`, `messages`.
        values: each measurement, at least one.
        unit: of the values.
        of: the variant that was measured, where an experiment compares some: `fork`, `greenlets`.
        at: the size at which it was measured, where that varies: a number of connections.
    """

    name: str
    values: tuple[float, ...]
    unit: Unit = ""
    of: str = ""
    at: int | None = None

    @property
    def median(self) -> float:
        """The middle of the values."""
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        """The lowest value."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The highest value."""
        return max(self.values)


class Figures(Sequence[Figure]):
    """The figures of an experiment, in the order in which they were measured."""

    def __init__(self, figures: Iterable[Figure] = ()) -> None:
        self._figures = list(figures)

    def __len__(self) -> int:
        return len(self._figures)

    def __getitem__(self, index: int) -> Figure:  # type: ignore[override]  # no slices
        return self._figures[index]

    def add(self, figure: Figure) -> None:
        """Add one that was measured."""
        self._figures.append(figure)

    def median(self, name: str, of: str = "", at: int | None = None) -> float:
        """Return the median of a figure.

        Raises:
            KeyError: it was not measured.
        """
        return self.find(name, of, at).median

    def find(self, name: str, of: str = "", at: int | None = None) -> Figure:
        """Return a figure.

        Raises:
            KeyError: it was not measured.
        """
        for one in self._figures:
            if (one.name, one.of, one.at) == (name, of, at):
                return one
        raise KeyError(name, of, at)

    def named(self, name: str) -> Iterator[Figure]:
        """Return the figures of a name: one for each variant and size."""
        return (one for one in self._figures if one.name == name)


class Conclusion(NamedTuple):
    """What the figures say of a claim.

    Attributes:
        verdict: whether it holds.
        statement: why, in a sentence or a paragraph, with the figures that decide.
    """

    verdict: Verdict
    statement: str

    @classmethod
    def when(cls, condition: bool, statement: str) -> Conclusion:
        """Conclude that a claim holds, or that it does not."""
        return cls("holds" if condition else "does not hold", statement)


@dataclass(frozen=True, slots=True)
class Experiment:
    """A claim and how it is tested.

    Attributes:
        name: as it is asked for on the command line.
        claim: what the tutorial claims, in a line.
        method: what is done, in a sentence.
        measure: does it, and yields each figure as soon as it is known; its argument says whether
            to be quick, with smaller numbers and fewer repeats. It runs in a process of its own,
            and raises CannotRunError where it cannot run.
        judge: computes the conclusion from all the figures and from nothing else.
        seconds: the longest that it may take; an experiment that takes longer is broken.
    """

    name: str
    claim: str
    method: str
    measure: Callable[[bool], Iterator[Figure]]
    judge: Callable[[Figures], Conclusion]
    seconds: float = 120.0


@dataclass(frozen=True, slots=True)
class Chapter:
    """A part of the tutorial.

    Attributes:
        name: its module's, and as it is asked for on the command line.
        title: for people.
        experiments: in the order of the tutorial.
    """

    name: str
    title: str
    experiments: tuple[Experiment, ...]
