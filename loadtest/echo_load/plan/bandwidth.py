"""Rates in bytes or bits per second, and the size of messages by which they are converted.

A bandwidth is that of the payload in one direction: what is sent, and what is to come back.
"""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from pathlib import Path

from echo_core.errors import InvalidValueError
from echo_core.units import parse_bandwidth, parse_rate

# No rate of messages has a b; every bandwidth has one.
_BYTES_OR_BITS = re.compile("[bB]")


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """A rate in payload bytes per second, in each direction.

    Attributes:
        bytes_per_second: the rate.
    """

    bytes_per_second: float


def parse_load(text: str) -> float | Bandwidth:
    """Return the messages per second of `10k`, or the bandwidth of `100MB/s` or `800Mbit/s`.

    Raises:
        InvalidValueError: the text is neither, or is 0.
    """
    if is_bandwidth(text):
        load: float | Bandwidth = Bandwidth(parse_bandwidth(text))
    else:
        try:
            load = parse_rate(text)
        except InvalidValueError as error:
            raise InvalidValueError(
                f"{text!r} is not a rate; write it as in 100, 10k, 100MB/s or 800Mbit/s"
            ) from error
    if not load or load == Bandwidth(0):
        raise InvalidValueError(f"{text!r} is not a rate above 0; write it as in 10k or 100MB/s")
    return load


def is_bandwidth(text: str) -> bool:
    """Return whether a rate, or stages of rates, are given in bytes or bits per second."""
    return _BYTES_OR_BITS.search(text) is not None


def mean_size(
    *,
    payload_size: tuple[int, int] = (64, 64),
    payload_file: str | None = None,
    message: str | None = None,
    hello: bool = False,
) -> float:
    """Return the mean size in bytes of the messages that these fields of a plan describe.

    Raises:
        InvalidValueError: the payload file cannot be read or has no size, the sizes are not a
            range, or the size of the messages grows with their number.
    """
    if hello:
        raise InvalidValueError(
            "a rate in bytes needs messages of a known mean size, which those of `hello` have not; "
            "give messages per second"
        )
    if message is not None:
        if not message:
            raise InvalidValueError("`message` is empty; it needs at least one byte")
        return float(len(message.encode(errors="surrogatepass")))
    if payload_file is not None:
        return float(_size_of(payload_file))
    least, most = payload_size
    if not 1 <= least <= most:
        raise InvalidValueError(
            f"`payload_size` {least} to {most} is not a size or a range of sizes of 1 byte or more"
        )
    # Sizes within a range are evenly distributed.
    return (least + most) / 2


def _size_of(path: str) -> int:
    try:
        found = Path(path).stat()
    except OSError as error:
        raise InvalidValueError(f"`payload_file` {path}: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode) or not found.st_size:
        raise InvalidValueError(
            f"`payload_file` {path} is empty or not a regular file, so a rate in bytes cannot be "
            "converted; give messages per second"
        )
    return found.st_size
