"""Injected faults, for testing clients, proxies and load testers.

Whether a fault is injected into a read, and its details, are decided by a hash of the seed, the
number of the connection in its worker and the number of the read in its connection. The same
traffic through one worker therefore gets the same faults again.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Self

from echo_core.errors import InvalidValueError
from echo_core.units import LONGEST_SECONDS, format_duration, parse_duration, parse_percentage
from echo_server.metrics.counters import FAULTS, Counter

KINDS = {counter.label: counter for counter in FAULTS}
TIMED = {Counter.FAULT_DELAY, Counter.FAULT_STALL}
STREAM_ONLY = {Counter.FAULT_STALL, Counter.FAULT_RESET, Counter.FAULT_CLOSE}
DATAGRAM_ONLY = {Counter.FAULT_DROP, Counter.FAULT_DUPLICATE, Counter.FAULT_REORDER}

_FAULT = re.compile(r"([a-z]+)(?:=([^@]*?)(?:\+-([^@]*))?)?(?:@(.*))?")
_HASH_INPUT = struct.Struct("=qqqq")
_HASH_OUTPUT = struct.Struct("=QQ")


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of fault and the share of reads or datagrams to inject it into.

    Attributes:
        kind: the kind of fault, as the counter that counts it.
        share: the share of reads or datagrams, from 0 to 1.
        seconds: the mean duration of a delay or a stall in seconds.
        jitter: the maximum deviation from that duration in seconds; deviations are distributed
            uniformly.
    """

    kind: Counter
    share: float = 1.0
    seconds: float = 0.0
    jitter: float = 0.0

    def __str__(self) -> str:
        """Return the form that `parse` reads: `delay=50ms+-10ms@10%`."""
        time = ""
        if self.kind in TIMED:
            time = f"={format_duration(self.seconds)}"
            time += f"+-{format_duration(self.jitter)}" if self.jitter else ""
        return f"{self.kind.label}{time}@{self.share * 100:g}%"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `KIND@PERCENT`, or `KIND=TIME[+-JITTER]@PERCENT` for a delay or a stall.

        The default percentage is 100 %.

        Raises:
            InvalidValueError: the text has neither form.
        """
        match = _FAULT.fullmatch(text.strip())
        if match is None:
            raise InvalidValueError(f"{text!r} is not a fault; write it as in reset@0.1%")
        name, time, jitter, share = match.groups()
        kind = KINDS.get(name)
        if kind is None:
            raise InvalidValueError(
                f"{text!r}: {name!r} is not a kind of fault; the kinds are {', '.join(KINDS)}"
            )
        if kind in TIMED and not time:
            raise InvalidValueError(f"{text!r} has no duration; write it as in {name}=50ms@10%")
        if kind not in TIMED and time is not None:
            raise InvalidValueError(f"{text!r}: {name} takes no duration; write {name}@10%")
        seconds, deviation = _seconds(text, time), _seconds(text, jitter)
        if deviation > seconds:
            raise InvalidValueError(
                f"{text!r}: the jitter is larger than the duration; give at most {time}"
            )
        try:
            return cls(
                kind, parse_percentage(share) if share is not None else 1.0, seconds, deviation
            )
        except InvalidValueError as error:
            raise InvalidValueError(f"{text!r}: {error}") from error


@dataclass(frozen=True, slots=True)
class Injection:
    """The injection of a fault into one read or datagram.

    Attributes:
        fault: the fault to inject.
        random: a pseudo-random number from 0 to 2**64 - 1, which determines the details: the
            duration, the position of the corrupt byte, or the length of the truncated data.
    """

    fault: Fault
    random: int

    @property
    def seconds(self) -> float:
        """The duration of this delay or stall in seconds."""
        deviation = self.random / 2**63 - 1
        return self.fault.seconds + self.fault.jitter * deviation

    def corrupted(self, data: bytes) -> bytes:
        """Return the data with one byte changed; empty data is returned unchanged."""
        if not data:
            return data
        changed = bytearray(data)
        position = self.random % len(data)
        # XOR with 1 to 255 gives any of the 255 other values.
        changed[position] ^= 1 + (self.random >> 32) % 255
        return bytes(changed)

    def truncated(self, data: bytes) -> bytes:
        """Return the data without its end: shorter by at least one byte.

        The result is empty only if the data has fewer than two bytes: an empty reply to a longer
        message would be a missing reply, not a truncated one.
        """
        return data[: 1 + self.random % (len(data) - 1)] if len(data) > 1 else b""


class FaultPlan:
    """The pseudo-random choice of the reads or datagrams that faults are injected into.

    Args:
        faults: the faults in order of precedence; at most one is injected into a read.
        seed: the seed of the choice; the same seed gives the same choice.
        without: kinds of fault to ignore.
    """

    def __init__(
        self, faults: Sequence[Fault], seed: int, *, without: Collection[Counter] = ()
    ) -> None:
        self._faults = [
            (number, fault, int(fault.share * 2**64))
            for number, fault in enumerate(faults)
            if fault.kind not in without
        ]
        self._seed = seed

    def choose(self, connection: int, read: int) -> Injection | None:
        """Return the injection for a read, or None.

        Args:
            connection: the number of the connection in its worker, from 0.
            read: the number of the read in its connection, from 0.
        """
        for number, fault, bound in self._faults:
            key = _HASH_INPUT.pack(self._seed, number, connection, read)
            first, second = _HASH_OUTPUT.unpack(hashlib.blake2b(key, digest_size=16).digest())
            if first < bound:
                return Injection(fault, second)
        return None


def _seconds(text: str, time: str | None) -> float:
    if time is None:
        return 0.0
    try:
        seconds = parse_duration(time)
    except InvalidValueError as error:
        raise InvalidValueError(f"{text!r}: {error}") from error
    if seconds > LONGEST_SECONDS:
        raise InvalidValueError(f"{text!r}: {time!r} is longer than a week (168h)")
    return seconds
