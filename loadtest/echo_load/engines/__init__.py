"""Engines: the ways in which one generator drives its connections."""

from __future__ import annotations

import math
import time
from collections import Counter
from ctypes import c_int64
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Protocol

from echo_client.connection import Address
from echo_client.payload import Payload
from echo_load.pacing import Schedule, Timeline
from echo_load.plan import Plan, StagePlan

if TYPE_CHECKING:
    # What is imported before gevent patches keeps its unpatched parts.
    import ssl

# An instant of the monotonic clock, and a message, that are never reached.
NEVER = 2**62
# Between two attempts to open a connection: doubled each time, up to the longest.
_BACK_OFF_SECONDS = 0.05
_LONGEST_BACK_OFF_SECONDS = 1.0
# Attempts in a row after which a connection is given up where nothing else ends a test: 7 seconds.
_MOST_FAILURES = 10


def back_off_seconds(failures: int) -> float:
    """How long to wait before another attempt to open a connection, after so many in a row."""
    return min(_BACK_OFF_SECONDS * 2.0 ** min(failures, 10), _LONGEST_BACK_OFF_SECONDS)


@dataclass(frozen=True, slots=True)
class Share:
    """What one generator has to do: its part of the connections, and of the messages.

    Attributes:
        plan: what all generators have to do.
        stages: those of the plan that share their connections.
        targets: of each target the addresses, in the order in which to try.
        payload: what is sent.
        sources: addresses to connect from, one per connection in turns; none for any.
        generator: its number, from 0.
        generators: how many there are.
        connections: how many connections there are in all; it has every `generators`th.
        core: the only processor core to run on; None for any.
        seed: for what is drawn.
        end_ns: the instant of the monotonic clock from which on nothing new is sent. It lies in
            memory that the controller shares and moves: among a thousand threads that take turns
            at the GIL, a thread that had to be told first could wait for seconds.
    """

    plan: Plan
    stages: tuple[StagePlan, ...]
    targets: tuple[tuple[Address, ...], ...]
    payload: Payload
    sources: tuple[str, ...]
    generator: int
    generators: int
    connections: int
    core: int | None
    seed: int
    end_ns: c_int64

    @property
    def numbers(self) -> range:
        """The numbers of its connections, of those from 1."""
        return range(1 + self.generator, self.connections + 1, self.generators)

    @property
    def connect_gap(self) -> float:
        """Seconds between two connections that it opens, at least: its part of the connect rate."""
        rate, own = self.plan.connect_rate, len(self.numbers)
        return self.connections / (rate * own) if rate and own else 0.0

    def quota(self, number: int) -> int | None:
        """How many messages a connection sends in all; None if nothing limits them."""
        if self.plan.messages is None or self.plan.open_loop:
            return None
        least, more = divmod(self.plan.messages, self.connections)
        return least + (number <= more)

    def stop_at(self, number: int, sequence: int) -> int:
        """The message before which a connection has something else to do than to send.

        Args:
            number: of the connection.
            sequence: of its next message, when it has just been opened.
        """
        quota = self.quota(number)
        through = NEVER if quota is None else quota
        return through if self.plan.churn is None else min(through, sequence + self.plan.churn)

    def gives_up(self, failures: int) -> bool:
        """Whether a connection is not opened any more, after so many failures in a row."""
        if not self.plan.reconnect:
            return failures > 0
        endless = self.plan.seconds is None and self.plan.messages is not None
        return endless and failures >= _MOST_FAILURES

    @property
    def ends_when_idle(self) -> bool:
        """Whether it is over once no connection is left, and not at an instant alone.

        That is where all messages may have been sent, no connection that was lost is opened anew,
        or nothing else ends it.
        """
        plan = self.plan
        return plan.messages is not None or not plan.reconnect or self.timeline.seconds == math.inf

    @property
    def due_until_ns(self) -> int:
        """The instant of the monotonic clock until which messages are due: the end, or now."""
        end_ns = self.end_ns.value
        return end_ns if end_ns < NEVER else time.monotonic_ns()

    @property
    def timeline(self) -> Timeline:
        """The stages on the clock."""
        return Timeline.of(self.plan, self.stages)

    @property
    def lives(self) -> Timeline | None:
        """The timeline that says when connections are open; None if they always are."""
        return None if self.plan.open_loop or not self.plan.stages else self.timeline

    def schedule(self) -> Schedule | None:
        """When its messages are due, from the beginning; None in a closed loop."""
        if not self.plan.open_loop:
            return None
        turns = range(self.generator, self.connections, self.generators)
        messages = self.plan.messages
        if messages is not None:
            rounds, more = divmod(messages, self.connections)
            messages = rounds * len(turns) + sum(turn < more for turn in turns)
        return Schedule(
            self.timeline,
            self.plan.arrivals,
            turns=turns,
            of=self.connections,
            seed=self.seed,
            messages=messages,
        )

    def addresses(self, number: int) -> tuple[Address, ...]:
        """Where a connection goes: the targets take turns."""
        return self.targets[(number - 1) % len(self.targets)]

    def source(self, number: int) -> str | None:
        """Where a connection comes from; None for any address."""
        # With as many targets as sources each target would otherwise see one source only.
        turn = (number - 1) // len(self.targets)
        return self.sources[turn % len(self.sources)] if self.sources else None

    def tls_context(self) -> ssl.SSLContext | None:
        """How TLS is spoken; None if no target speaks it."""
        if not any(address.transport == "tls" for target in self.targets for address in target):
            return None
        return self.plan.tls.context()


@dataclass(slots=True)
class Counts:
    """What is counted; counts of several connections or generators can be added.

    Attributes:
        opened: connections that were established.
        failed: attempts to establish one that failed.
        lost: connections that were given up before the end, for an error.
        closed: connections that ended, for whatever reason.
        messages: round trips completed, right or wrong.
        wrong: of these, how many were wrong; they are among the errors, too.
        bytes_sent: payload bytes handed to the kernel.
        bytes_received: payload bytes that came back.
        datagrams_sent: datagrams handed to the kernel.
        datagrams_received: datagrams that came back.
        retransmits: segments that TCP sent again on connections that have ended.
        errors: failures by kind, as `ClientError.kind` and `payload.WRONG` name them, and
            `no_reply`, `no_thread`, `lost` (a datagram), `unsent`.
    """

    opened: int = 0
    failed: int = 0
    lost: int = 0
    closed: int = 0
    messages: int = 0
    wrong: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    datagrams_sent: int = 0
    datagrams_received: int = 0
    retransmits: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def open(self) -> int:
        """Connections that are open."""
        return self.opened - self.closed

    @property
    def attempts(self) -> int:
        """What errors are a share of: round trips completed, and what failed without one."""
        return self.messages + self.errors.total() - self.wrong

    def __add__(self, other: Counts) -> Counts:
        """Both together."""
        names = [one.name for one in fields(self)]
        return Counts(*(getattr(self, name) + getattr(other, name) for name in names))

    def since(self, other: Counts) -> Counts:
        """What has been added to earlier counts."""
        names = [one.name for one in fields(self) if one.name != "errors"]
        gained = Counts(*(getattr(self, name) - getattr(other, name) for name in names))
        # An error may be taken back: a datagram that was held for lost and came late.
        for kind in self.errors | other.errors:
            if change := self.errors[kind] - other.errors[kind]:
                gained.errors[kind] = change
        return gained

    def add(self, other: Counts) -> None:
        """Add other counts to these; errors that were taken back are subtracted."""
        for one in fields(self):
            if one.name != "errors":
                setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))
        self.errors.update(other.errors)

    def copy(self) -> Counts:
        """The counts as they are now."""
        return self + Counts()


class Engine(Protocol):
    """Opens connections, waits at the gate, sends and checks, and says what happened."""

    def open(self) -> None:
        """Begin to open the connections of the beginning; returns at once."""

    @property
    def settled(self) -> bool:
        """Every connection of the beginning is established or has failed."""

    def start(self, gate_ns: int) -> None:
        """Open the gate: every connection sends from an instant on, until its share's end.

        Args:
            gate_ns: the instant, of the monotonic clock; the first stage begins with it.
        """

    def abort(self, verdict: str | None = None) -> None:
        """Break off at once.

        Args:
            verdict: the error that a round trip under way counts as; without one it counts as
                nothing at all.
        """

    @property
    def ended(self) -> bool:
        """Every connection has ended, and the time in which they were to send is over."""

    def join(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for what `abort` woke; False if some still runs."""

    def counts(self) -> Counts:
        """What has been counted since the beginning."""

    def messages_by_connection(self) -> list[int]:
        """How many round trips each connection has made."""
