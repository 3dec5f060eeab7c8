"""Injected faults, for testing clients, proxies and load testers.

Whether a fault strikes is worked out, not drawn: a hash of the seed, the number of the connection
in its worker and the number of the read in its connection says so, and also where it strikes and
how hard. So the same traffic through one worker meets the same faults again.
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

_FORM = re.compile(r"([a-z]+)(?:=([^@]*?)(?:\+-([^@]*))?)?(?:@(.*))?")
_KEY = struct.Struct("=qqqq")
_DRAWS = struct.Struct("=QQ")


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault and how often it is injected.

    Attributes:
        kind: what happens, as the counter that counts it.
        share: of the reads or datagrams, 0 to 1.
        seconds: how long a delay or a stall is.
        jitter: by how many seconds more or less, evenly spread.
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

        Without a percentage the fault strikes always.

        Raises:
            InvalidValueError: it is none, and why.
        """
        match = _FORM.fullmatch(text.strip())
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
        seconds, spread = _seconds(text, time), _seconds(text, jitter)
        if spread > seconds:
            raise InvalidValueError(
                f"{text!r}: the jitter is larger than the duration; give at most {time}"
            )
        try:
            return cls(kind, parse_percentage(share) if share is not None else 1.0, seconds, spread)
        except InvalidValueError as error:
            raise InvalidValueError(f"{text!r}: {error}") from error


@dataclass(frozen=True, slots=True)
class Strike:
    """A fault injected into one read or datagram.

    Attributes:
        fault: which.
        draw: a number from 0 to 2**64 - 1 of its own: where and how hard.
    """

    fault: Fault
    draw: int

    @property
    def seconds(self) -> float:
        """The length of this delay or stall in seconds."""
        spread = self.draw / 2**63 - 1
        return self.fault.seconds + self.fault.jitter * spread

    def corrupted(self, data: bytes) -> bytes:
        """Return the data with one byte changed; empty data is returned unchanged."""
        if not data:
            return data
        changed = bytearray(data)
        position = self.draw % len(data)
        # Any of the 255 other values.
        changed[position] ^= 1 + (self.draw >> 32) % 255
        return bytes(changed)

    def truncated(self, data: bytes) -> bytes:
        """Return the data without its end: at least one byte less, but not empty if there were two.

        An empty reply would be a missing one, not a truncated one.
        """
        return data[: 1 + self.draw % (len(data) - 1)] if len(data) > 1 else b""


class FaultPlan:
    """The random choice of the faults to inject.

    Args:
        faults: the faults in order of precedence; at most one is injected into a read.
        seed: the seed of the random choice; the same seed gives the same faults.
        without: kinds of fault that do not apply here.
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

    def strike(self, connection: int, read: int) -> Strike | None:
        """Return the fault for a read of a connection, both numbered from 0; None for none."""
        for number, fault, bound in self._faults:
            key = _KEY.pack(self._seed, number, connection, read)
            first, second = _DRAWS.unpack(hashlib.blake2b(key, digest_size=16).digest())
            if first < bound:
                return Strike(fault, second)
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
