"""The search for the highest level, a rate or a number of connections, that a target sustains.

The search runs no tests itself: a function tries a level. A single attempt is unreliable near the
limit, and on a busy machine sometimes elsewhere. A level therefore counts as failed only if two of
at most three attempts failed, and longer attempts confirm the answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

# Kept; failed because of the target; failed because of the generator; unknown.
Outcome = Literal["kept", "failed", "generator", "interrupted"]
Attempt = Callable[[float, bool], Outcome]
# The majority of three attempts.
_MAJORITY = 2
# Attempts at a level that fail because of the generator before that counts as the limit.
_MOST_DISTURBED = 3


@dataclass(frozen=True, slots=True)
class Range:
    """The levels to search.

    Attributes:
        start: first level to try.
        lowest: level below which nothing is tried.
        highest: level above which nothing is tried.
        precision: relative distance between the answer and a level that failed, at which the
            search ends (0.05 is 5 %).
        whole: whether levels are whole numbers.
    """

    start: float
    lowest: float
    highest: float
    precision: float
    whole: bool = False

    def rounded(self, level: float) -> float:
        """Return the nearest level that can be tried, with at most four significant digits."""
        level = float(round(level)) if self.whole or level >= 1000 else float(f"{level:.4g}")
        return min(self.highest, max(self.lowest, level))

    def is_narrow(self, kept: float, failed: float) -> bool:
        """Return whether no level between these two has to be tried."""
        if self.whole and failed - kept <= 1:
            return True
        return failed <= kept * (1 + self.precision) or self.between(kept, failed) in {kept, failed}

    def between(self, kept: float, failed: float) -> float:
        """Return the level to try between two others."""
        return self.rounded(math.sqrt(kept * failed))


@dataclass(frozen=True, slots=True)
class Found:
    """The answer of a search.

    Attributes:
        level: highest level that was kept; None if none was.
        failed: lowest level above it that failed; None if none did.
        outcome: outcome of the level that failed, `failed` or `generator`; `kept` if none failed;
            `interrupted` if the search was stopped.
        confirmed: whether the level was confirmed.
    """

    level: float | None
    failed: float | None
    outcome: Outcome
    confirmed: bool


def search(attempt: Attempt, within: Range) -> Found:
    """Find the highest level that is kept: bracket it, narrow the bracket, confirm the answer.

    Args:
        attempt: tries a level and returns the outcome; its second argument is True if the attempt
            is to confirm the answer.
        within: levels to search.
    """
    return _Search(attempt, within).run()


class _Search:
    """A search in progress.

    Args:
        attempt: as for `search`.
        within: as for `search`.
    """

    def __init__(self, attempt: Attempt, within: Range) -> None:
        self._attempt = attempt
        self._within = within
        self._kept: float | None = None
        self._failed: float | None = None
        self._outcome: Outcome = "kept"

    def run(self) -> Found:
        """Search; see `search`."""
        complete = self._bracket() and self._narrow()
        if not complete or self._kept is None:
            return self._found(confirmed=False)
        return self._confirm(self._kept)

    def _found(self, *, confirmed: bool) -> Found:
        return Found(self._kept, self._failed, self._outcome, confirmed)

    def _bracket(self) -> bool:
        """Double the level until one fails, or halve it until one is kept.

        Returns:
            False if the search was interrupted.
        """
        within = self._within
        level = within.rounded(within.start)
        while True:
            if not self._try(level):
                return False
            if self._kept is not None and self._failed is not None:
                return True
            if level >= within.highest and self._kept is not None:
                return True
            if level <= within.lowest and self._failed is not None:
                return True
            level = within.rounded(level * 2 if self._failed is None else level / 2)

    def _narrow(self) -> bool:
        """Try levels between the highest kept and the lowest failed until they are close.

        Returns:
            False if the search was interrupted.
        """
        while self._kept is not None and self._failed is not None:
            if self._within.is_narrow(self._kept, self._failed):
                break
            if not self._try(self._within.between(self._kept, self._failed)):
                return False
        return True

    def _confirm(self, level: float) -> Found:
        """Confirm a level, or else the first of several lower ones that can be confirmed."""
        step = self._within.precision
        while True:
            outcome = self._outcome_at(level, confirm=True)
            if outcome == "interrupted":
                self._outcome = outcome
                return self._found(confirmed=False)
            if outcome == "kept":
                self._kept = level
                return self._found(confirmed=True)
            self._kept, self._failed, self._outcome = None, level, outcome
            if level <= self._within.lowest:
                return self._found(confirmed=False)
            lower = self._within.rounded(level / (1 + step))
            level = lower if lower < level else level - 1
            # Growing steps limit the number of attempts if the level is far too high.
            step *= 1.5

    def _try(self, level: float) -> bool:
        """Try a level; return False if the search was interrupted."""
        outcome = self._outcome_at(level, confirm=False)
        if outcome == "interrupted":
            self._outcome = outcome
            return False
        if outcome == "kept":
            self._kept = level
        else:
            self._failed, self._outcome = level, outcome
        return True

    def _outcome_at(self, level: float, *, confirm: bool) -> Outcome:
        """Return the outcome of a level: of the first attempt if kept, else of most attempts.

        An attempt that failed because of the generator shows nothing about the target and is
        repeated; after three of them the generator is the limit.
        """
        kept = failed = disturbed = 0
        while True:
            outcome = self._attempt(level, confirm)
            match outcome:
                case "interrupted":
                    return outcome
                case "kept":
                    kept += 1
                    if kept > failed or kept == _MAJORITY:
                        return outcome
                case "failed":
                    failed += 1
                    if failed == _MAJORITY:
                        return outcome
                case "generator":
                    disturbed += 1
                    if disturbed == _MOST_DISTURBED:
                        return outcome
