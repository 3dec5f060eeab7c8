"""The search finds known limits of a function, also with noise."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from echo_load.limits.search import Outcome, Range, search

WITHIN = Range(start=1000, lowest=10, highest=1e6, precision=0.05)


@pytest.mark.parametrize("limit", [11.0, 437.0, 1000.0, 1001.0, 4230.0, 777_777.0])
def test_the_answer_is_within_the_precision_below_the_limit(limit: float) -> None:
    found = search(lambda level, _: "kept" if level <= limit else "failed", WITHIN)
    assert found.confirmed
    assert found.level is not None
    assert found.failed is not None
    assert found.level <= limit < found.failed <= found.level * 1.0501


@pytest.mark.parametrize("limit", [1, 7, 100, 4230])
def test_a_number_of_connections_is_whole(limit: int) -> None:
    within = Range(start=100, lowest=1, highest=1e6, precision=0.05, whole=True)
    found = search(lambda level, _: "kept" if level <= limit else "failed", within)
    assert found.level is not None
    assert found.level % 1 == 0
    assert limit / 1.06 - 1 <= found.level <= limit


def test_a_bound_that_is_close_is_tried_at_once() -> None:
    """500 kB/s, doubled in whole messages, and 2 MB/s are no two steps."""
    tried: list[float] = []

    def attempt(level: float, confirm: bool) -> Outcome:
        if not confirm:
            tried.append(level)
        return outcome

    outcome: Outcome = "kept"
    search(attempt, Range(start=7812.5, lowest=10, highest=31_250, precision=0.05))
    assert tried == [7812, 15_624, 31_250]
    tried.clear()
    outcome = "failed"
    search(attempt, Range(start=100, lowest=24.9, highest=1e6, precision=0.05))
    assert tried == [100, 100, 50, 50, 24.9, 24.9]


def test_what_never_fails_or_never_holds_is_said() -> None:
    always = search(lambda *_: "kept", WITHIN)
    assert (always.level, always.failed, always.outcome) == (1e6, None, "kept")
    never = search(lambda *_: "failed", WITHIN)
    assert (never.level, never.failed, never.outcome) == (None, 10, "failed")


def test_the_generator_is_the_limit_if_it_fails_again_and_again() -> None:
    found = search(lambda level, _: "kept" if level <= 5000 else "generator", WITHIN)
    assert found.outcome == "generator"
    assert found.level is not None
    assert 4700 <= found.level <= 5000


def test_a_disturbed_generator_does_not_count_against_the_target() -> None:
    attempts: list[float] = []

    def attempt(level: float, _confirm: bool) -> Outcome:
        attempts.append(level)
        if len(attempts) % 2:
            return "generator"
        return "kept" if level <= 5000 else "failed"

    found = search(attempt, WITHIN)
    assert (found.outcome, found.confirmed) == ("failed", True)
    assert found.level is not None
    assert 4700 <= found.level <= 5000


def test_a_level_that_only_seems_to_fail_during_disturbances_is_kept() -> None:
    """Three of four attempts fail while something disturbs both sides."""
    attempts: list[float] = []

    def attempt(level: float, _confirm: bool) -> Outcome:
        attempts.append(level)
        return "kept" if level <= 5000 and len(attempts) % 4 == 0 else "disturbed"

    found = search(attempt, WITHIN)
    assert (found.outcome, found.confirmed) == ("failed", True)
    assert found.level is not None
    assert 4700 <= found.level <= 5000


def test_a_confirmation_that_was_only_disturbed_is_tried_again() -> None:
    confirmations: list[float] = []

    def attempt(level: float, confirm: bool) -> Outcome:
        if confirm:
            confirmations.append(level)
            if len(confirmations) <= 8:
                return "disturbed"
        return "kept" if level <= 5000 else "failed"

    found = search(attempt, WITHIN)
    assert (found.outcome, found.confirmed) == ("failed", True)
    assert found.level is not None
    assert 4700 <= found.level <= 5000


def test_an_interrupted_search_gives_what_is_known() -> None:
    levels: list[float] = []

    def attempt(level: float, _confirm: bool) -> Outcome:
        levels.append(level)
        if len(levels) > 3:
            return "interrupted"
        return "kept"

    found = search(attempt, WITHIN)
    assert (found.level, found.outcome, found.confirmed) == (4000, "interrupted", False)


@pytest.mark.parametrize("limit", [5000.0, 5001.0, 5180.0, 5249.0, 9000.0])
def test_a_target_that_keeps_what_is_required_is_never_found_short(limit: float) -> None:
    within = replace(WITHIN, required=5000)
    found = search(lambda level, _: "kept" if level <= limit else "failed", within)
    assert found.confirmed
    assert found.level is not None
    assert found.failed is not None
    assert 5000 <= found.level <= limit < found.failed


def test_what_is_required_is_found_short_by_an_attempt_of_its_own() -> None:
    attempts: list[tuple[float, bool]] = []

    def attempt(level: float, confirm: bool) -> Outcome:
        attempts.append((level, confirm))
        return "kept" if level < 5000 else "failed"

    found = search(attempt, replace(WITHIN, required=5000))
    assert (found.failed, found.outcome, found.confirmed) == (5000, "failed", True)
    assert found.level is not None
    assert found.level < 5000
    assert (5000, True) in attempts


def test_what_is_required_below_the_lowest_level_is_tried() -> None:
    found = search(lambda level, _: "kept" if level <= 7 else "failed", replace(WITHIN, required=7))
    assert (found.level, found.failed, found.confirmed) == (7, 10, True)


def test_a_generator_that_fails_at_what_is_required_is_the_limit() -> None:
    found = search(
        lambda level, _: "kept" if level < 5000 else "generator", replace(WITHIN, required=5000)
    )
    assert (found.failed, found.outcome) == (5000, "generator")


def test_an_answer_that_cannot_be_confirmed_is_narrowed_again() -> None:
    def attempt(level: float, confirm: bool) -> Outcome:
        return "kept" if level <= (4300 if confirm else 5000) else "failed"

    found = search(attempt, WITHIN)
    assert found.confirmed
    assert found.level is not None
    assert found.failed is not None
    assert found.level <= 4300 < found.failed <= found.level * 1.0501


@pytest.mark.parametrize("begin", range(6))
def test_a_disturbance_while_the_limit_is_bracketed_misleads_nobody(begin: int) -> None:
    """All attempts fail for a time, whatever the level."""
    attempts: list[float] = []

    def attempt(level: float, _confirm: bool) -> Outcome:
        attempts.append(level)
        disturbed = begin <= len(attempts) < begin + 3
        return "kept" if level <= 4300 and not disturbed else "failed"

    found = search(attempt, WITHIN)
    assert found.confirmed
    assert found.level is not None
    assert found.failed is not None
    assert found.level <= 4300 < found.failed <= found.level * 1.0501


@pytest.mark.parametrize("attempts", range(1, 20))
def test_an_interrupted_search_names_no_level_that_was_not_kept(attempts: int) -> None:
    kept: list[float] = []
    failed: list[float] = []

    def attempt(level: float, confirm: bool) -> Outcome:
        if len(kept + failed) == attempts:
            return "interrupted"
        is_kept = level <= (2300 if confirm else 5000)
        (kept if is_kept else failed).append(level)
        return "kept" if is_kept else "failed"

    found = search(attempt, WITHIN)
    assert (found.outcome, found.confirmed) == ("interrupted", False)
    below = [level for level in kept if found.failed is None or level < found.failed]
    assert found.level == max(below, default=None)
    assert found.failed is None or found.failed in failed


def test_noise_moves_the_answer_little() -> None:
    """One attempt in ten fails for no reason of the target, and those near the limit are tosses."""
    near = 0
    for seed in range(200):
        noise = random.Random(seed)

        def attempt(level: float, _confirm: bool, noise: random.Random = noise) -> Outcome:
            if noise.random() < 0.1:
                return "failed"
            return "kept" if math.log(level / 4000) < noise.gauss(0, 0.03) else "failed"

        found = search(attempt, WITHIN)
        near += found.level is not None and 3600 <= found.level <= 4400
    assert near >= 180
