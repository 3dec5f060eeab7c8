"""The search for the highest level, a rate or a number of connections, that a target sustains.

The search runs no tests itself: a function tries a level. A single attempt is unreliable near the
limit, and on a busy machine anywhere. A level therefore counts as failed only if several attempts
failed. Longer attempts confirm the answer, and what failed above it is tried once more at the end,
when the disturbance that may have been the reason is over.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

# Kept; failed because of the target; failed because of the target or of a disturbance; failed
# because of the generator; unknown.
Outcome = Literal["kept", "failed", "disturbed", "generator", "interrupted"]
Attempt = Callable[[float, bool], Outcome]
# The majority of three attempts.
_MAJORITY = 2
# Attempts at a level all of which have to fail if some of them were disturbed.
_MOST_ATTEMPTS = 4
# Further searches above the answer, because a level that had failed was kept at last.
_MOST_CHALLENGES = 3


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
        required: level of which the answer has to say whether it is kept; None for none.
    """

    start: float
    lowest: float
    highest: float
    precision: float
    whole: bool = False
    required: float | None = None

    def rounded(self, level: float) -> float:
        """Return the nearest level that can be tried, with at most four significant digits."""
        level = float(round(level)) if self.whole or level >= 1000 else float(f"{level:.4g}")
        return min(self.highest, max(self.lowest, level))

    def above(self, level: float) -> float:
        """Return the level to try above one that was kept: twice it, or the highest if close."""
        double = self.rounded(level * 2)
        return self.highest if self.highest <= double * (1 + self.precision) else double

    def below(self, level: float) -> float:
        """Return the level to try below one that failed: half of it, or the lowest if close."""
        half = self.rounded(level / 2)
        return self.lowest if half <= self.lowest * (1 + self.precision) else half

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
    """Find the highest level that is kept: bracket it, narrow the bracket, confirm both ends.

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
        # The level to be confirmed, and the lowest one above it that failed, because of `_outcome`.
        self._kept: float | None = None
        self._failed: float | None = None
        self._outcome: Outcome = "kept"
        # The last levels that longer attempts showed to be kept, and to fail without disturbances.
        self._confirmed: float | None = None
        self._refuted: float | None = None
        self._is_disturbed = False
        self._all_kept: list[float] = []

    def run(self) -> Found:
        """Search; see `search`."""
        complete = (
            self._bracket()
            and self._narrow(confirm=False)
            and self._confirm()
            and self._decide_required()
        )
        if not complete:
            self._outcome = "interrupted"
            # The level that was to be confirmed next may not have been tried at all.
            self._kept = max((one for one in self._all_kept if self._is_below(one)), default=None)
        return Found(
            self._kept,
            self._failed,
            self._outcome,
            confirmed=complete and self._kept is not None,
        )

    def _is_below(self, level: float) -> bool:
        return self._failed is None or level < self._failed

    def _bracket(self) -> bool:
        """Double the level until one fails, or halve it until one is kept.

        Returns:
            False if the search was interrupted.
        """
        within = self._within
        level = within.rounded(within.start)
        while True:
            if not self._try(level, confirm=False):
                return False
            if self._kept is not None and self._failed is not None:
                return True
            if level >= within.highest and self._kept is not None:
                return True
            if level <= within.lowest and self._failed is not None:
                return True
            level = within.above(level) if self._failed is None else within.below(level)

    def _narrow(self, *, confirm: bool) -> bool:
        """Try levels between the highest kept and the lowest failed until they are close.

        Returns:
            False if the search was interrupted.
        """
        while self._kept is not None and self._failed is not None:
            if self._within.is_narrow(self._kept, self._failed):
                break
            if not self._try(self._within.between(self._kept, self._failed), confirm=confirm):
                return False
        return True

    def _confirm(self) -> bool:
        """Confirm that the answer is kept, and that the level above it still fails.

        If the answer is not kept, a lower one is narrowed with long attempts; if the level above it
        is kept after all, the search goes on from there.

        Returns:
            False if the search was interrupted.
        """
        for _ in range(_MOST_CHALLENGES):
            if not (self._confirm_kept() and self._narrow(confirm=True)):
                return False
            if self._kept is None or self._failed in {None, self._refuted}:
                return True
            outcome = self._outcome_at(self._failed, confirm=False)
            if outcome == "interrupted":
                return False
            if outcome != "kept":
                return True
            if not (self._rise(self._failed) and self._narrow(confirm=False)):
                return False
        return self._confirm_kept() and self._narrow(confirm=True)

    def _decide_required(self) -> bool:
        """Try the required level if it is between the answer and the level that failed.

        Returns:
            False if the search was interrupted.
        """
        required = self._within.required
        if required is None or self._failed is None:
            return True
        if not (self._kept or 0.0) < required < self._failed:
            return True
        return self._try(required, confirm=True)

    def _confirm_kept(self) -> bool:
        """Confirm the level, or find one below it that can be.

        Returns:
            False if the search was interrupted.
        """
        step = self._within.precision
        while self._kept is not None and self._kept != self._confirmed:
            level = self._kept
            if not self._try(level, confirm=True):
                return False
            if self._kept != self._confirmed:
                self._kept = self._below(level, step)
                step *= 2
        return True

    def _below(self, level: float, step: float) -> float | None:
        """Return the level to confirm next if this one was not; None below the lowest."""
        if level <= self._within.lowest:
            return None
        lower = self._within.rounded(level / (1 + step))
        lower = lower if lower < level else level - 1
        return lower if self._confirmed is None else max(lower, self._confirmed)

    def _rise(self, level: float) -> bool:
        """Raise a level that is kept after all until one fails.

        Returns:
            False if the search was interrupted.
        """
        step = self._within.precision
        self._kept = level
        self._forget_failure()
        while self._failed is None and level < self._within.highest:
            higher = self._within.rounded(level * (1 + step))
            level = higher if higher > level else level + 1
            if not self._try(level, confirm=False):
                return False
            step *= 2
        return True

    def _forget_failure(self) -> None:
        self._failed, self._outcome = None, "kept"

    def _try(self, level: float, *, confirm: bool) -> bool:
        """Try a level; return False if the search was interrupted."""
        outcome = self._outcome_at(level, confirm=confirm)
        if outcome == "interrupted":
            return False
        if outcome == "kept":
            self._kept = level
            self._all_kept.append(level)
            if confirm:
                self._confirmed = level
        else:
            self._failed, self._outcome = level, outcome
            if confirm and not self._is_disturbed:
                self._refuted = level
        return True

    def _outcome_at(self, level: float, *, confirm: bool) -> Outcome:
        """Return the outcome of a level: of the first attempt if kept, else of most attempts.

        Disturbances make a target look worse, never better. Attempts that failed during one, or
        because of the generator, are therefore repeated more often, and count only if all fail.
        Most of them decide whether the target or the generator is the limit.
        """
        kept = 0
        failures: Counter[Outcome] = Counter()
        while True:
            outcome = self._attempt(level, confirm)
            match outcome:
                case "interrupted":
                    return outcome
                case "kept":
                    kept += 1
                    if kept > failures["failed"] or kept == _MAJORITY:
                        return outcome
                case _:
                    failures[outcome] += 1
            self._is_disturbed = failures["failed"] < _MAJORITY
            if not self._is_disturbed:
                return "failed"
            if (failed := failures.total()) == _MOST_ATTEMPTS:
                return "generator" if 2 * failures["generator"] >= failed else "failed"
