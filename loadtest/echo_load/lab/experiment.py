"""Experiments: a claim, the measurements that test it, and the verdict that follows from them."""

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
class Measurement:
    """A quantity that was measured once or several times.

    Attributes:
        name: name of the quantity: `start`, `messages`.
        values: value of each repeat, at least one.
        unit: unit of the values.
        of: variant, where an experiment compares several: `fork`, `greenlets`.
        at: size, where that varies: a number of connections.
    """

    name: str
    values: tuple[float, ...]
    unit: Unit = ""
    of: str = ""
    at: int | None = None

    @property
    def median(self) -> float:
        """The median of the values."""
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        """The lowest value."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The highest value."""
        return max(self.values)


class Measurements(Sequence[Measurement]):
    """The measurements of an experiment, in the order in which they were measured."""

    def __init__(self, measurements: Iterable[Measurement] = ()) -> None:
        self._measurements = list(measurements)

    def __len__(self) -> int:
        return len(self._measurements)

    def __getitem__(self, index: int) -> Measurement:  # type: ignore[override]  # no slices
        return self._measurements[index]

    def add(self, measurement: Measurement) -> None:
        """Add a measurement; it replaces an earlier one of the same name, variant and size."""
        key = (measurement.name, measurement.of, measurement.at)
        for index, one in enumerate(self._measurements):
            if (one.name, one.of, one.at) == key:
                self._measurements[index] = measurement
                return
        self._measurements.append(measurement)

    def median(self, name: str, of: str = "", at: int | None = None) -> float:
        """Return the median of a measurement.

        Raises:
            KeyError: it was not measured.
        """
        return self.find(name, of, at).median

    def find(self, name: str, of: str = "", at: int | None = None) -> Measurement:
        """Return the measurement of a name, variant and size.

        Raises:
            KeyError: it was not measured.
        """
        for one in self._measurements:
            if (one.name, one.of, one.at) == (name, of, at):
                return one
        raise KeyError(name, of, at)

    def named(self, name: str) -> Iterator[Measurement]:
        """Return the measurements of a name: one for each variant and size."""
        return (one for one in self._measurements if one.name == name)


class Conclusion(NamedTuple):
    """The verdict on a claim, with its reason.

    Attributes:
        verdict: verdict on the claim.
        statement: reason, in a sentence or a paragraph, with the values that decide.
    """

    verdict: Verdict
    statement: str

    @classmethod
    def when(cls, condition: bool, statement: str) -> Conclusion:
        """Conclude that a claim holds, or that it does not."""
        return cls("holds" if condition else "does not hold", statement)


@dataclass(frozen=True, slots=True)
class Experiment:
    """A claim and its test.

    Attributes:
        name: name on the command line.
        claim: claim of the tutorial, in a line.
        method: method of the test, in a sentence.
        measure: function that runs it and yields each measurement as soon as it is known, or known
            more exactly. Its argument is True for a quick run, with smaller numbers and fewer
            repeats. It is called in a process of its own, and raises CannotRunError where it
            cannot run.
        conclude: function that computes the conclusion from the measurements and nothing else.
        seconds: time limit in seconds; an experiment that takes longer has failed.
    """

    name: str
    claim: str
    method: str
    measure: Callable[[bool], Iterator[Measurement]]
    conclude: Callable[[Measurements], Conclusion]
    seconds: float = 120.0


@dataclass(frozen=True, slots=True)
class Chapter:
    """A part of the tutorial.

    Attributes:
        name: name of its module, and on the command line.
        title: title for people.
        experiments: its experiments, in the order of the tutorial.
    """

    name: str
    title: str
    experiments: tuple[Experiment, ...]
