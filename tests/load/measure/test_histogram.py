from __future__ import annotations

import pickle
from array import array

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st

from echo_load.measure.histogram import HIGHEST_NS, LatencyHistogram

# Empty, not base64, without counts, and with counts beyond the last.
NO_HISTOGRAMS = (
    "",
    "nonsense",
    "HISTFAAAAAA=",
    "HISTFAAAACx4nJNpmSzMwMDAxQABzAoQmhHIdDPYsYDB/gNE4Dw/11l+rqebGbkAk+IH5g==",
)

batches = st.lists(st.integers(1, HIGHEST_NS), max_size=50)


def recorded(*values: int) -> LatencyHistogram:
    histogram = LatencyHistogram()
    histogram.record(array("q", values))
    return histogram


def by_the_library(values: list[int]) -> HdrHistogram:
    histogram = HdrHistogram(1, HIGHEST_NS, 3)
    for value in values:
        assert histogram.record_value(value)
    return histogram


@given(st.lists(batches, max_size=4))
def test_batches_are_counted_where_the_library_counts_values(parts: list[list[int]]) -> None:
    ours = LatencyHistogram()
    for part in parts:
        ours.record(array("q", part))
    values = [value for part in parts for value in part]
    theirs = by_the_library(values)
    decoded = HdrHistogram.decode(ours.encode())
    assert decoded.get_max_value() == theirs.get_max_value()
    assert decoded.get_total_count() == theirs.get_total_count() == ours.count
    for value in values:
        assert decoded.get_count_at_value(value) == theirs.get_count_at_value(value)
    if values:
        assert ours.max_us == max(values) / 1e3
        assert ours.mean_us == pytest.approx(sum(values) / len(values) / 1e3)


@given(batches.filter(bool), st.integers(1, 100_000))
def test_percentiles_are_the_least_that_so_many_do_not_exceed(
    values: list[int], thousandths: int
) -> None:
    (ours,) = recorded(*values).percentiles_us([thousandths / 1000])
    rank = max(1, -(-thousandths * len(values) // 100_000))
    counted = by_the_library(values)
    nearest = counted.get_highest_equivalent_value(sorted(values)[rank - 1])
    assert ours == min(nearest, max(values)) / 1e3


@given(st.lists(st.tuples(st.integers(1, HIGHEST_NS // 1000), st.integers(1, 1000)), min_size=1))
def test_a_latency_with_a_count_is_recorded_so_often(pairs: list[tuple[int, int]]) -> None:
    values, counts = np.array(pairs, dtype=np.int64).T
    counted, repeated = LatencyHistogram(), LatencyHistogram()
    counted.record_values(values, counts)
    repeated.record_values(np.repeat(values, counts))
    assert counted.pack() == repeated.pack()


def test_one_late_reply_of_sixty_is_their_p99() -> None:
    times = [1_000_000] * 59 + [1_000_000_000]
    whole = recorded(*times)
    merged = recorded(*times[:30])
    merged.merge(LatencyHistogram.unpack(recorded(*times[30:]).pack()))
    for one in (whole, merged, LatencyHistogram.decode(whole.encode())):
        assert one.percentiles_us([98, 99, 99.9]) == pytest.approx([1000, 1e6, 1e6], rel=1e-3)
    # Exactly 59 of 60.
    assert whole.percentiles_us([100 * 59 / 60])[0] == pytest.approx(1000, rel=1e-3)


@given(batches, batches)
def test_merging_is_recording_both(first: list[int], second: list[int]) -> None:
    merged = recorded(*first)
    merged.merge(pickle.loads(pickle.dumps(recorded(*second))))
    both = recorded(*first, *second)
    assert merged.encode() == both.encode()
    assert (merged.count, merged.max_us, merged.mean_us) == (
        both.count,
        both.max_us,
        both.mean_us,
    )


def test_figures_known_by_hand() -> None:
    histogram = recorded(*(microseconds * 1000 for microseconds in range(1, 1001)))
    p50, p99, p100 = histogram.percentiles_us([50, 99, 100])
    assert p50 == pytest.approx(500, rel=1e-3)
    assert p99 == pytest.approx(990, rel=1e-3)
    assert p100 == 1000
    assert histogram.mean_us == pytest.approx(500.5)


def test_what_takes_longer_than_an_hour_is_kept_in_the_tail() -> None:
    histogram = recorded(1000, HIGHEST_NS + 1, 10 * HIGHEST_NS)
    assert (histogram.count, histogram.clamped) == (3, 2)
    assert histogram.max_us == HIGHEST_NS / 100
    assert histogram.percentiles_us([99])[0] == pytest.approx(HIGHEST_NS / 1e3, rel=1e-3)


@given(batches, batches)
def test_counts_up_to_bounds_are_exact_to_three_digits(
    values: list[int], bounds: list[int]
) -> None:
    found = recorded(*values).count_up_to(bounds)
    for bound, count in zip(bounds, found, strict=True):
        assert count >= sum(value <= bound for value in values)
        assert count <= sum(value <= bound * 1.001 + 1 for value in values)


def test_counts_up_to_bounds_known_by_hand() -> None:
    histogram = recorded(100, 100, 2_000_000, HIGHEST_NS)
    assert histogram.count_up_to([0, 99, 100, 1_900_000, 2_000_000]) == [0, 0, 2, 2, 3]
    assert histogram.count_up_to([HIGHEST_NS, 10 * HIGHEST_NS]) == [4, 4]


@pytest.mark.slow
@given(batches)
def test_what_was_encoded_is_decoded(values: list[int]) -> None:
    histogram = recorded(*values)
    decoded = LatencyHistogram.decode(histogram.encode())
    assert decoded.encode() == histogram.encode()
    assert decoded.count == len(values)
    assert decoded.max_us == pytest.approx(histogram.max_us, rel=1e-3)
    assert decoded.percentiles_us([50]) == pytest.approx(histogram.percentiles_us([50]), rel=1e-3)


@pytest.mark.parametrize("encoded", NO_HISTOGRAMS)
def test_what_is_no_histogram_is_not_decoded(encoded: str) -> None:
    with pytest.raises(ValueError, match="not an encoded HdrHistogram"):
        LatencyHistogram.decode(encoded)


def test_nothing_recorded() -> None:
    histogram = LatencyHistogram()
    assert histogram.count_up_to([1, 1000]) == [0, 0]
    assert histogram.percentiles_us([50, 99]) == [0, 0]
    assert (histogram.mean_us, histogram.max_us) == (0, 0)
