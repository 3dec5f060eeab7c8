"""Parsing and formatting of durations, counts, rates, sizes, bandwidths and percentages."""

from __future__ import annotations

import math
import re
from typing import Literal

from echo_core.errors import InvalidValueError

# The longest duration of a setting; poll(2) takes at most 24 days (an int of milliseconds).
LONGEST_SECONDS = 7 * 24 * 3600
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_NUMBER = r"\d{1,15}(?:\.\d{1,15})?"
_DURATION = re.compile(rf"(?:{_NUMBER}(?:us|ms|s|m|h))+")
_DURATION_PART = re.compile(rf"({_NUMBER})(us|ms|s|m|h)")

_COUNT = re.compile(rf"({_NUMBER})([kM]?)")
_MULTIPLES = {"": 1, "k": 1_000, "M": 1_000_000}

_SIZE = re.compile(rf"({_NUMBER}) ?([kKMGT]?)(i?)(B?)")
_PERCENTAGE = re.compile(rf"({_NUMBER}) ?%")
# iperf3 writes Mbits/sec. A lone b is known only to be refused: it means bits or bytes.
_BANDWIDTH = re.compile(rf"({_NUMBER}) ?([kKMGT]?)(i?)(?:(B|bits?|b)?(?:/s|/sec)?|(bps))")


def parse_duration(text: str) -> float:
    """Return the seconds of `10s`, `1m30s`, `250ms` or `1.5h`; a bare number means seconds.

    Raises:
        InvalidValueError: the text is not a duration.
    """
    text = text.strip()
    if re.fullmatch(_NUMBER, text, re.ASCII):
        return float(text)
    if not _DURATION.fullmatch(text) or not text.isascii():
        raise InvalidValueError(
            f"{text!r} is not a duration; write it as in 10s, 1m30s, 250ms or 2h"
        )
    return math.fsum(
        float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(text)
    )


def parse_count(text: str) -> int:
    """Return the whole number of `100`, `10k`, `1.5k` or `1M`.

    Raises:
        InvalidValueError: the text is not a count, or not a whole number.
    """
    text = text.strip()
    match = _COUNT.fullmatch(text)
    if match is None or not text.isascii():
        raise InvalidValueError(f"{text!r} is not a count; write it as in 100, 10k or 1M")
    digits, suffix = match.groups()
    return _whole(digits, _MULTIPLES[suffix], text)


def parse_rate(text: str) -> float:
    """Return the events per second of `100`, `10k`, `0.5` or `2.5k/s`.

    Raises:
        InvalidValueError: the text is not a rate.
    """
    text = text.strip()
    match = _COUNT.fullmatch(text.removesuffix("/s"))
    if match is None or not text.isascii():
        raise InvalidValueError(f"{text!r} is not a rate; write it as in 100, 10k or 2.5k/s")
    return float(match[1]) * _MULTIPLES[match[2]]


def parse_size(text: str) -> int:
    """Return the bytes of `512`, `64KiB`, `1.5MiB`, `10k` or `1 MB`.

    KiB, MiB, GiB and TiB are powers of 1024; kB, MB, GB and TB are powers of 1000 (IEC 80000-13).
    The B is optional.

    Raises:
        InvalidValueError: the text is not a size, or not a whole number of bytes.
    """
    text = text.strip()
    match = _SIZE.fullmatch(text)
    if match is None or not text.isascii() or (match[3] and not match[2]):
        raise InvalidValueError(f"{text!r} is not a size; write it as in 512, 64KiB or 10MB")
    digits, prefix, binary, _ = match.groups()
    base = 1024 if binary else 1000
    return _whole(digits, base ** "_KMGT".index(prefix.upper() or "_"), text)


def parse_bandwidth(text: str, *, unit: Literal["B", "bit"] | None = None) -> float:
    """Return the bytes per second of `100MB/s`, `800Mbit/s`, `1GiB/s` or `2.5Gbps`.

    Prefixes are as for sizes. The `/s` is optional.

    Args:
        text: a number of bytes (`B`) or bits (`bit`, `bps`) per second.
        unit: unit of a number that has none; None to refuse such a number.

    Raises:
        InvalidValueError: the text is not a bandwidth, or `b` leaves open which unit is meant.
    """
    text = text.strip()
    match = _BANDWIDTH.fullmatch(text)
    number, prefix, binary, named, bps = match.groups() if match else (None,) * 5
    named = "bit" if bps else (named or unit)
    if not number or not named or not text.isascii() or (binary and not prefix):
        raise InvalidValueError(
            f"{text!r} is not a bandwidth; write it as in 100MB/s, 800Mbit/s or 1GiB/s"
        )
    if named == "b":
        prefix = f"{number}{prefix}{binary}"
        raise InvalidValueError(
            f"{text!r} may mean bits or bytes; write {prefix}bit/s or {prefix}B/s"
        )
    factor: int = (1024 if binary else 1000) ** "_KMGT".index((prefix or "_").upper())
    return float(number) * factor / (1 if named == "B" else 8)


def parse_percentage(text: str) -> float:
    """Return the share, from 0 to 1, of `10%`, `0.5%` or `100%`.

    Raises:
        InvalidValueError: the text is not a percentage, or is above 100 %.
    """
    text = text.strip()
    match = _PERCENTAGE.fullmatch(text)
    if match is None or not text.isascii() or float(match[1]) > 100:
        raise InvalidValueError(f"{text!r} is not a percentage; write it as in 0.1%, 10% or 100%")
    return float(match[1]) / 100


def parse_size_range(text: str) -> tuple[int, int]:
    """Return the smallest and the largest size in bytes of `64`, `16KiB` or `64-16KiB`.

    Raises:
        InvalidValueError: the text is not a size or a range of sizes, or the smallest is 0.
    """
    match = re.fullmatch(r"([^-]+)(?:-([^-]+))?", text.strip())
    if match is None:
        raise InvalidValueError(f"{text!r} is not a size; write it as in 64, 16KiB or 64-16KiB")
    smallest = parse_size(match[1])
    largest = parse_size(match[2]) if match[2] else smallest
    if not 1 <= smallest <= largest:
        raise InvalidValueError(
            f"{text!r} is not a range of sizes of 1 byte or more; write it as in 64-16KiB"
        )
    return smallest, largest


def _whole(digits: str, multiple: int, text: str) -> int:
    whole, _, fraction = digits.partition(".")
    scale: int = 10 ** len(fraction)
    parts, remainder = divmod(int(fraction or "0") * multiple, scale)
    if remainder:
        raise InvalidValueError(f"{text!r} is not a whole number")
    return int(whole) * multiple + parts


def format_duration(seconds: float) -> str:
    """Format seconds in the notation that `parse_duration` reads: `250ms`, `10s`, `1m30s`, `2h`."""
    if seconds < 1:
        milliseconds = seconds * 1e3
        if milliseconds < 1:
            return f"{seconds * 1e6:.6g}us" if seconds else "0s"
        return f"{milliseconds:.6g}ms"
    if seconds < 60:
        return f"{seconds:.6g}s"
    if seconds >= 1e15:
        # Of no use as a setting, but an error may have to say it.
        return f"{seconds:.6g}s"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    parts = [f"{hours}h" if hours else "", f"{minutes}m" if minutes else ""]
    return "".join(parts) + (f"{rest:.6g}s" if rest else "")


def format_time(seconds: float) -> str:
    """Format a measured time with a fitting unit: `84 µs`, `12.3 ms`, `4.20 s`, `120 s`."""
    # Not at 1 ms, which the rounding would write as 1000 µs.
    if seconds < 999.5e-6:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 999.5e-3:
        return f"{_three_digits(seconds * 1e3)} ms"
    return f"{_three_digits(seconds)} s"


def _three_digits(value: float) -> str:
    decimals = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{decimals}f}"


def format_bytes(count: float) -> str:
    """Format a number of bytes with binary prefixes (IEC 80000-13): `512 B`, `64.0 KiB`."""
    if count < 1024:
        return f"{count:.0f} B"
    exponent = min(int(math.log2(count) // 10), 4)
    return f"{count / 1024**exponent:.1f} {'KMGT'[exponent - 1]}iB"


def format_bandwidth(bytes_per_second: float) -> str:
    """Format a bandwidth in bytes and in bits, with decimal prefixes: `12.5 MB/s (100 Mbit/s)`."""
    return f"{format_byte_rate(bytes_per_second)} ({format_bit_rate(bytes_per_second)})"


def format_byte_rate(bytes_per_second: float) -> str:
    """Format a bandwidth in bytes per second: `950 B/s`, `64 kB/s`, `1.25 GB/s`."""
    return _with_prefix(bytes_per_second, "B/s")


def format_bit_rate(bytes_per_second: float) -> str:
    """Format a bandwidth in bits per second: `512 kbit/s`, `10 Gbit/s`."""
    return _with_prefix(bytes_per_second * 8, "bit/s")


def _with_prefix(value: float, unit: str) -> str:
    """Return a value with three digits, a decimal prefix and its unit."""
    prefix = ""
    for larger in "kMGT":
        # A value that would be rounded to 1000 of one unit is 1 of the next.
        if value < 999.5:
            break
        value, prefix = value / 1000, larger
    return f"{value:,.0f} {prefix}{unit}" if value >= 99.95 else f"{value:.3g} {prefix}{unit}"


def format_count(count: int, noun: str) -> str:
    """Format a number with its noun: `1 reply`, `0 replies`, `1,234 connections`, `2 processes`."""
    if count == 1:
        return f"1 {noun}"
    plural = (
        f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}{'es' if noun[-1] == 's' else 's'}"
    )
    return f"{count:,} {plural}"
