from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo_core.errors import InvalidValueError
from echo_core.units import format_bytes, format_duration, parse_count, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10s", 10),
        ("1m30s", 90),
        ("250ms", 0.25),
        ("1.5h", 5400),
        ("100us", 1e-4),
        ("7", 7),
        ("0", 0),
        (" 2s ", 2),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "s", "10x", "-1s", "1s2", "1 s", "ten", "1e3s", "\u0661s", "∞"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(InvalidValueError, match="not a duration"):
        parse_duration(text)


@given(st.integers(0, 10_000_000))
def test_durations_are_read_as_they_are_written(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=1e-5)


@pytest.mark.parametrize(
    ("text", "count"),
    [("0", 0), ("100", 100), ("10k", 10_000), ("1.5k", 1500), ("1M", 1_000_000), ("0.001k", 1)],
)
def test_counts(text: str, count: int) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["", "k", "-1", "1.5", "1.0001k", "10K", "1_000", "abc", "\u0661"])
def test_what_is_no_count(text: str) -> None:
    with pytest.raises(InvalidValueError, match="not a"):
        parse_count(text)


@given(st.integers(0, 10**9))
def test_counts_in_thousands(thousands: int) -> None:
    assert parse_count(f"{thousands}k") == thousands * 1000


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (2**30, "1.0 GiB")],
)
def test_bytes(count: int, text: str) -> None:
    assert format_bytes(count) == text
