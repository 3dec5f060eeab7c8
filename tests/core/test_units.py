from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo_core.errors import InvalidValueError
from echo_core.units import (
    format_bandwidth,
    format_bit_rate,
    format_byte_rate,
    format_bytes,
    format_count,
    format_duration,
    format_time,
    parse_bandwidth,
    parse_count,
    parse_duration,
    parse_percentage,
    parse_rate,
    parse_size,
)


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
def test_invalid_durations(text: str) -> None:
    with pytest.raises(InvalidValueError, match="not a duration"):
        parse_duration(text)


@given(st.integers(0, 10_000_000))
def test_formatted_durations_are_parsed_back(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=1e-5)


@pytest.mark.parametrize(
    ("text", "count"),
    [("0", 0), ("100", 100), ("10k", 10_000), ("1.5k", 1500), ("1M", 1_000_000), ("0.001k", 1)],
)
def test_counts(text: str, count: int) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["", "k", "-1", "1.5", "1.0001k", "10K", "1_000", "abc", "\u0661"])
def test_invalid_counts(text: str) -> None:
    with pytest.raises(InvalidValueError, match="not a"):
        parse_count(text)


@given(st.integers(0, 10**9))
def test_counts_in_thousands(thousands: int) -> None:
    assert parse_count(f"{thousands}k") == thousands * 1000


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("0", 0),
        ("100", 100),
        ("10k", 10_000),
        ("0.5", 0.5),
        ("2.5k/s", 2500),
        ("1.5M", 1_500_000),
        (" 7/s ", 7),
    ],
)
def test_rates(text: str, rate: float) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text", ["", "/s", "-1", "10K", "10/m", "10/s/s", "10 /s", "1e3", "k", "inf", "nan", "\u0661"]
)
def test_invalid_rates(text: str) -> None:
    with pytest.raises(InvalidValueError, match="is not a rate; write it as in 100, 10k or"):
        parse_rate(text)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (2**30, "1.0 GiB")],
)
def test_bytes(count: int, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512", 512),
        ("64KiB", 65536),
        ("64 KiB", 65536),
        ("64Ki", 65536),
        ("1.5MiB", 1572864),
        ("10k", 10_000),
        ("10kB", 10_000),
        ("10KB", 10_000),
        ("2MB", 2_000_000),
        ("1G", 1_000_000_000),
        ("1TiB", 1 << 40),
        ("7B", 7),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "KiB", "1iB", "-1", "1 m", "0.5", "1.0001kB", "1kbit", "1e3"])
def test_invalid_sizes(text: str) -> None:
    with pytest.raises(InvalidValueError, match=r"not a size|not a whole number"):
        parse_size(text)


@given(st.integers(0, 10**12))
def test_sizes_are_exact(size: int) -> None:
    assert parse_size(f"{size}B") == size
    assert parse_size(f"{size}KiB") == size * 1024


@pytest.mark.parametrize(
    ("text", "bytes_per_second"),
    [
        ("100MB/s", 100e6),
        ("800Mbit/s", 100e6),
        ("1GiB/s", 2**30),
        ("1 GB/s", 1e9),
        ("941 Mbits/sec", 117_625_000),
        ("2.5Gbps", 312_500_000),
        ("64KiB", 65536),
        ("1.5kB/s", 1500),
        ("1Kibit/s", 128),
        ("8bit/s", 1),
        ("1bit", 0.125),
        ("0B/s", 0),
        (" 7B/s ", 7),
        ("1TB/s", 1e12),
    ],
)
def test_bandwidths(text: str, bytes_per_second: float) -> None:
    assert parse_bandwidth(text) == bytes_per_second


@pytest.mark.parametrize(
    "text",
    [
        *("", "MB/s", "100", "10k", "10k/s", "100/s", "1iB/s", "100mB/s", "100XB/s", "100MB/m"),
        *("100MB/s/s", "100bps/s", "100MBps", "-5MB/s", "1e3B/s", "infB/s", "1,000MB/s", "MB"),
        *("100 M B/s", "\u0661MB/s", "100MB /s", "100MBytes/s", "100bitB/s"),
    ],
)
def test_invalid_bandwidths(text: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        parse_bandwidth(text)
    assert str(caught.value) == (
        f"{text.strip()!r} is not a bandwidth; write it as in 100MB/s, 800Mbit/s or 1GiB/s"
    )


@pytest.mark.parametrize("text", ["100Mb/s", "100Mb", "1.5 Kib/s", "1b/s"])
def test_a_unit_that_may_be_bits_or_bytes_is_refused(text: str) -> None:
    with pytest.raises(InvalidValueError, match=r" may mean bits or bytes; write ") as caught:
        parse_bandwidth(text)
    # What it advises is right.
    _, _, advice = str(caught.value).partition("; write ")
    bits, bytes_ = map(parse_bandwidth, advice.split(" or "))
    assert bits * 8 == bytes_ > 0


def test_a_bandwidth_without_a_unit_has_the_given_one() -> None:
    assert parse_bandwidth("50M", unit="B") == 50e6
    assert parse_bandwidth("50M/s", unit="bit") == 50e6 / 8
    assert parse_bandwidth("50Mbit", unit="B") == 50e6 / 8
    assert parse_bandwidth("50MiB", unit="bit") == 50 * 2**20


@given(
    st.integers(0, 10**9),
    st.sampled_from(["", "k", "K", "M", "G", "T", "Ki", "Mi", "Gi", "Ti"]),
    st.sampled_from(["", "/s", "/sec"]),
)
def test_a_byte_is_eight_bits_with_any_prefix(number: int, prefix: str, per: str) -> None:
    whole = parse_bandwidth(f"{number}{prefix}B{per}")
    factor = parse_size(f"1{prefix}B")
    assert whole == pytest.approx(number * factor, rel=1e-15)
    assert parse_bandwidth(f"{number}{prefix}bit{per}") == whole / 8
    assert parse_bandwidth(f"{number}{prefix}bits{per}") == whole / 8
    assert parse_bandwidth(f"{number}{prefix}bps") == whole / 8


@given(st.text(max_size=12))
def test_any_text_is_a_bandwidth_or_refused_in_one_line(text: str) -> None:
    refusal = "none"
    try:
        assert 0 <= parse_bandwidth(text) < float("inf")
    except InvalidValueError as error:
        refusal = str(error)
    assert refusal.isprintable()


@given(st.floats(0.01, 1e15))
def test_formatted_bandwidths_are_parsed_back(bytes_per_second: float) -> None:
    """Three digits are exact to half a percent."""
    for formatted in (format_byte_rate(bytes_per_second), format_bit_rate(bytes_per_second)):
        parsed = parse_bandwidth(formatted.replace(",", ""))
        assert parsed == pytest.approx(bytes_per_second, rel=0.00501)


@pytest.mark.parametrize(
    ("bytes_per_second", "written"),
    [
        (0, "0 B/s (0 bit/s)"),
        (0.5, "0.5 B/s (4 bit/s)"),
        (950, "950 B/s (7.6 kbit/s)"),
        (999.4, "999 B/s (8 kbit/s)"),
        (999.6, "1 kB/s (8 kbit/s)"),
        (64_000, "64 kB/s (512 kbit/s)"),
        (12.5e6, "12.5 MB/s (100 Mbit/s)"),
        (99.96e6, "100 MB/s (800 Mbit/s)"),
        (1.25e9, "1.25 GB/s (10 Gbit/s)"),
        (2**30, "1.07 GB/s (8.59 Gbit/s)"),
    ],
)
def test_a_bandwidth_is_written_in_bytes_and_in_bits(bytes_per_second: float, written: str) -> None:
    assert format_bandwidth(bytes_per_second) == written


@pytest.mark.parametrize(
    ("text", "share"), [("0%", 0), ("0.1%", 0.001), ("10 %", 0.1), ("100%", 1)]
)
def test_percentages(text: str, share: float) -> None:
    assert parse_percentage(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "%", "10", "-1%", "100.1%", "1e1%", "ten%"])
def test_invalid_percentages(text: str) -> None:
    with pytest.raises(InvalidValueError, match="not a percentage"):
        parse_percentage(text)


@pytest.mark.parametrize(
    ("count", "noun", "written"),
    [
        (0, "reply", "0 replies"),
        (1, "reply", "1 reply"),
        (1, "connection", "1 connection"),
        (1234, "connection", "1,234 connections"),
    ],
)
def test_counts_have_the_right_plural(count: int, noun: str, written: str) -> None:
    assert format_count(count, noun) == written


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.0, "0 µs"),
        (84e-6, "84 µs"),
        (999.4e-6, "999 µs"),
        (999.6e-6, "1.00 ms"),
        (1.234e-3, "1.23 ms"),
        (9.996e-3, "10.0 ms"),
        (12.34e-3, "12.3 ms"),
        (99.96e-3, "100 ms"),
        (999.4e-3, "999 ms"),
        (999.6e-3, "1.00 s"),
        (4.2, "4.20 s"),
        (123.4, "123 s"),
    ],
)
def test_a_measured_time_has_a_fitting_unit(seconds: float, expected: str) -> None:
    assert format_time(seconds) == expected
