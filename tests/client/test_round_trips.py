from __future__ import annotations

from array import array

import pytest

from echo_client.round_trips import Jitter, percentile, summary


@pytest.mark.parametrize(
    ("count", "percentage", "expected"),
    [(1, 50, 1), (2, 50, 1), (3, 50, 2), (60, 99, 60), (100, 99, 99), (101, 99, 100), (10, 90, 9)],
)
def test_the_rank_of_a_percentile_is_rounded_up(count: int, percentage: int, expected: int) -> None:
    assert percentile(range(1, count + 1), percentage) == expected


def test_the_jitter_is_the_mean_of_the_estimates() -> None:
    jitter = Jitter()
    assert jitter.nanoseconds is None
    jitter.add(1000)
    assert jitter.nanoseconds is None
    # The estimates are 160 / 16 = 10, then 10 + (330 - 10) / 16 = 30.
    jitter.add(1160)
    jitter.add(830)
    assert jitter.nanoseconds == (10 + 30) / 2


def test_another_connection_begins_anew() -> None:
    jitter = Jitter()
    for _ in range(2):
        jitter.begin_connection()
        jitter.add(1000)
        jitter.add(1160)
        assert jitter.nanoseconds == 10
    jitter.begin_connection()
    jitter.add(9_000_000)
    assert jitter.nanoseconds == 10


def test_a_summary_has_fitting_units() -> None:
    trips = array("q", [84_000, 12_300_000, 4_200_000_000])
    assert summary(trips) == (
        "round trip min 84 µs, p50 12.3 ms, p90 4.20 s, p99 4.20 s, max 4.20 s"
    )
    assert summary(array("q")) == ""
