"""The comparisons of the results in a page, each with the first one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from echo_load.errors import IncomparableError
from echo_load.report.page.traces import Run
from echo_load.results.compare import compare
from echo_load.results.comparison import Change, ChangeVerdict, Comparison

# The classes that the style sheet has for verdicts.
_CLASSES: dict[ChangeVerdict, str] = {
    "better": "passed",
    "worse": "failed",
    "no difference": "equal",
    "too noisy": "interrupted",
    "too few repeats": "interrupted",
}


@dataclass(frozen=True, slots=True)
class Compared:
    """A comparison of a run with the first one.

    Attributes:
        name: name of the run.
        comparison: the comparison; None if there is none.
        refusal: the reason for which there is none.
    """

    name: str
    comparison: Comparison | None = None
    refusal: str = ""

    @property
    def stages(self) -> list[tuple[str, list[Change]]]:
        """The changes of each stage; the stage has no name if there is a single one."""
        changes = self.comparison.changes if self.comparison is not None else []
        found = [(stage, list(same)) for stage, same in groupby(changes, lambda one: one.stage)]
        return found if len(found) > 1 else [("", changes) for _, changes in found]

    @property
    def needs_repeats(self) -> bool:
        """True if there are too few repeats to tell a difference."""
        return any(
            change.verdict == "too few repeats" for _, changes in self.stages for change in changes
        )


def compared(runs: Sequence[Run]) -> list[Compared]:
    """Return the comparison of each run but the first with the first."""
    found = []
    for run in runs[1:]:
        names = (runs[0].name, run.name)
        try:
            found.append(Compared(run.name, compare(runs[0].result, run.result, names=names)))
        except IncomparableError as error:
            found.append(Compared(run.name, refusal=str(error)))
    return found


def class_of(verdict: ChangeVerdict) -> str:
    """Return the class that the style sheet has for a verdict."""
    return _CLASSES[verdict]
