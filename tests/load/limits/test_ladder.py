"""The pauses of a search for an idle timeout, and the answer that their outcomes come to."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo_load.limits.ladder import conclude, first_rungs, next_rungs
from echo_load.results.idle import IdleResult, IdleRung, Outcome

ASKED = IdleResult(
    kept_seconds=0.0,
    dropped_seconds=None,
    how=None,
    irregular_seconds=None,
    up_to_seconds=600.0,
    precision_seconds=None,
    keepalive_seconds=None,
    at_least_seconds=None,
    datagrams=False,
    rungs=[],
)


def rung(pause: float, outcome: Outcome, closed: float | None = None, number: int = 1) -> IdleRung:
    return IdleRung(
        round=number,
        pause_seconds=pause,
        idle_seconds=pause if closed is None else closed,
        outcome=outcome,
        closed_seconds=closed,
    )


@given(st.floats(0.5, 604_800), st.floats(0.01, 1))
def test_the_first_round_is_a_ladder_up_to_the_longest_pause(up_to: float, share: float) -> None:
    pauses = first_rungs(up_to, None)
    assert pauses[-1] == up_to
    assert 0 < pauses[0] <= 1
    assert pauses == sorted(set(pauses))
    assert len(pauses) == 24
    assert up_to * share in first_rungs(up_to, up_to * share)


@given(st.floats(0.1, 590), st.sampled_from([None, 0.5, 5.0]))
def test_rounds_narrow_down_to_the_precision(timeout: float, precision: float | None) -> None:
    found = msgspec.structs.replace(ASKED, precision_seconds=precision)
    pauses, rungs, rounds = first_rungs(600.0, None), list[IdleRung](), 0
    while pauses:
        rounds += 1
        rungs += [
            rung(pause, "kept" if pause < timeout else "silence", number=rounds) for pause in pauses
        ]
        found = conclude(found, rungs)
        pauses = next_rungs(found)
        assert len(pauses) <= 48
    assert found.dropped_seconds is not None
    assert found.kept_seconds < timeout <= found.dropped_seconds
    wanted = precision or max(0.01, found.dropped_seconds / 100)
    assert found.dropped_seconds - found.kept_seconds <= wanted * 1.01
    assert rounds <= 3
    assert found.how == "silence"
    assert found.irregular_seconds is None


def test_a_close_that_was_seen_is_exact() -> None:
    found = conclude(ASKED, [rung(265, "kept"), rung(350, "end_of_stream", 340.25)])
    assert (found.kept_seconds, found.dropped_seconds) == (265, 340.25)
    assert found.how == "end_of_stream"
    assert found.answer == "kept up to 265 s, dropped from 340 s on, by an end of stream"


def test_what_was_kept_beyond_is_said() -> None:
    found = conclude(ASKED, [rung(10, "kept"), rung(20, "silence"), rung(30, "kept")])
    assert (found.kept_seconds, found.dropped_seconds, found.irregular_seconds) == (10, 20, 30)
    assert found.answer.endswith("dropped from 20 s on, in silence; but one was kept for 30 s")


@pytest.mark.parametrize("outcome", ["unknown", "kept"])
def test_what_is_not_known_is_not_dropped(outcome: Outcome) -> None:
    found = conclude(ASKED, [rung(10, "kept"), rung(20, outcome)])
    assert (found.dropped_seconds, found.how) == (None, None)
    assert found.kept_seconds == (20 if outcome == "kept" else 10)
    assert next_rungs(found) == []


def test_nothing_is_known_without_an_outcome() -> None:
    assert conclude(ASKED, [rung(10, "unknown")]).answer == "not known"
