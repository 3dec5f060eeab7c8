"""Engines: the ways in which one generator drives its connections."""

from __future__ import annotations

from collections import Counter
from ctypes import c_int64
from dataclasses import dataclass, field, fields
from typing import Protocol

from echo_client.connection import Address
from echo_load.latency import LatencyHistogram


@dataclass(frozen=True, slots=True)
class Share:
    """What one generator has to do in a stage.

    Attributes:
        addresses: where to connect, in the order in which to try.
        numbers: the numbers of its connections in the stage.
        timeout: seconds that a reply may take.
        connect_timeout: seconds that opening a connection may take.
        connects_in_flight: connections to open at once.
        core: the only processor core to run on; None for any.
        end_ns: the instant of the monotonic clock from which on nothing new is sent. It lies in
            memory that the controller shares and moves: among a thousand threads that take turns
            at the GIL, a thread that had to be told first could wait for seconds.
    """

    addresses: tuple[Address, ...]
    numbers: range
    timeout: float
    connect_timeout: float
    connects_in_flight: int
    core: int | None
    end_ns: c_int64


@dataclass(slots=True)
class Counts:
    """What is counted; counts of several connections or generators can be added.

    Attributes:
        opened: connections that were established.
        failed: connections that could not be.
        lost: connections that were given up before the end, for an error.
        messages: round trips completed, right or wrong.
        bytes_sent: payload bytes handed to the kernel.
        bytes_received: payload bytes that came back.
        retransmits: segments that TCP sent again on connections that have ended.
        errors: failures by kind, as `ClientError.kind` names them, and `no_reply`, `no_thread`.
    """

    opened: int = 0
    failed: int = 0
    lost: int = 0
    messages: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    retransmits: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: Counts) -> Counts:
        """Both together."""
        names = [one.name for one in fields(self)]
        return Counts(*(getattr(self, name) + getattr(other, name) for name in names))


@dataclass(slots=True)
class Snapshot:
    """What has happened in one generator.

    Attributes:
        counts: since its start.
        response: round trips since the snapshot before, by the second after the gate opened in
            which the reply was in.
        connect: times to establish a connection since the snapshot before.
        last_reply_ns: when the last reply until now was in, on the monotonic clock.
    """

    counts: Counts
    response: dict[int, LatencyHistogram]
    connect: LatencyHistogram
    last_reply_ns: int


class Engine(Protocol):
    """Opens connections, waits at the gate, sends and checks, and says what happened."""

    def open(self) -> None:
        """Begin to open the connections; returns at once."""

    @property
    def settled(self) -> bool:
        """Every connection is established or has failed."""

    def start(self, begin_ns: int) -> None:
        """Open the gate: every connection sends from an instant on, until its share's end.

        Args:
            begin_ns: the instant, of the monotonic clock; seconds are counted from it.
        """

    def abort(self, verdict: str | None = None) -> None:
        """Break off at once.

        Args:
            verdict: the error that a round trip under way counts as; without one it counts as
                nothing at all.
        """

    @property
    def ended(self) -> bool:
        """Every connection has ended."""

    def join(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for what `abort` woke; False if some still runs."""

    def snapshot(self) -> Snapshot:
        """What has happened until now."""
