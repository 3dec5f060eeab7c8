"""The measurements of probes: counts, times, datagrams and the first failures."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from echo_client.connection import DatagramConnection, EchoConnection
from echo_client.errors import ClientError, MismatchError
from echo_client.failure_kinds import FailureKind
from echo_client.round_trips import Jitter
from echo_load.engines.checking import Difference, check_one
from echo_load.engines.evidence import Evidence, reason_of
from echo_load.engines.recorder import Recorder
from echo_load.measure.counts import Counts
from echo_load.plan.payload import Payload
from echo_load.results.evidence import described, escaped


class WrongReplyError(MismatchError):
    """A reply differs from its message, or came although none was due.

    Attributes:
        difference: how it differs.
    """

    def __init__(self, difference: Difference) -> None:
        super().__init__(f"the reply is {difference.kind}")
        self.difference = difference


@dataclass(slots=True)
class Sender:
    """The place of a connection, and of those that replace it, in the messages of a test.

    Attributes:
        number: number of the connection, from 1.
        sequence: number of the next message.
        in_flight: number of the message in flight; None if there is none.
    """

    number: int
    sequence: int = 0
    in_flight: int | None = None


@dataclass(slots=True)
class Findings:
    """The measurements of the probes of all targets, to be read and written under `lock` only.

    Attributes:
        recorder: recorder of round trips, of times to connect and of the first failures.
        lock: the lock that guards all fields.
        counts: connections, messages and errors.
        messages_lost: probes that were sent on an open connection and got no reply.
        disregarded: probes that failed while this process did not run.
        reconnects: seconds that it took to replace each lost connection.
        messages: number of replies by slot.
    """

    recorder: Recorder
    lock: threading.Lock = field(default_factory=threading.Lock)
    counts: Counts = field(default_factory=Counts)
    messages_lost: int = 0
    disregarded: int = 0
    reconnects: list[float] = field(default_factory=list)
    messages: Counter[int] = field(default_factory=Counter)
    # Of the datagrams of each kept connection: the jitter, and those lost since the last reply.
    _jitters: defaultdict[int, Jitter] = field(default_factory=lambda: defaultdict(Jitter))
    _lost: Counter[int] = field(default_factory=Counter)

    def note_evidence(
        self, sender: Sender, kind: FailureKind, error: ClientError, payload: Payload
    ) -> None:
        """Keep a failure if it is among the first of its kind.

        Args:
            sender: the connection.
            kind: kind of failure that it is counted as.
            error: the failure.
            payload: the messages.
        """
        evidence, message = self.recorder.evidence, sender.in_flight
        if isinstance(error, WrongReplyError):
            evidence.add_reply(sender.number, error.difference)
            return
        if error.received and message is not None:
            due = payload.message(sender.number, message)
            evidence.add_reply(sender.number, Difference(kind, message, due, error.received))
        evidence.add_failure(sender.number, kind, message, reason_of(error))

    def note_datagram(self, slot: int, round_trip_ns: int) -> None:
        """Update the jitter of a kept connection, and end the burst of its losses."""
        self._lost[slot] = 0
        estimate = self._jitters[slot].add(round_trip_ns)
        if estimate is not None:
            self.counts.jitter_ns += estimate
            self.counts.jitters += 1

    def note_loss(self, slot: int | None) -> None:
        """Count a lost datagram in the burst of its connection.

        Args:
            slot: number of the kept connection; None for a new connection, which sends only one.
        """
        burst = 1
        if slot is not None:
            self._lost[slot] = burst = self._lost[slot] + 1
        if burst > 1:
            self.counts.bursts[burst - 1] -= 1
        self.counts.bursts[burst] += 1


def is_datagram(connection: EchoConnection) -> bool:
    """Return whether a connection is one over UDP."""
    return isinstance(connection, DatagramConnection)


def wrong_reply(
    payload: Payload, number: int, sequence: int, message: bytes, reply: bytes
) -> Difference:
    """Return how a reply differs from its message.

    Args:
        payload: the messages.
        number: number of the connection.
        sequence: number of the message.
        message: the message.
        reply: what was received; it may be shorter.
    """
    if found := check_one(payload, number, sequence, message, reply).differences:
        return found[0]
    return Difference(payload.diagnose(number, sequence, reply), sequence, message, reply)


def surplus(payload: Payload, number: int, last: int, data: bytes) -> Difference:
    """Return how data differs that was received when no reply was due.

    Args:
        payload: the messages.
        number: number of the connection.
        last: number of the last message sent; -1 if none was.
        data: the data; empty for an empty datagram.
    """
    kind = payload.diagnose_surplus(number, last, data) if data else FailureKind.FOREIGN
    return Difference(kind, last, b"", data)


def in_words(payload: Payload, number: int, found: Difference) -> str:
    """Return how a reply differs, with the first bytes of it, without a full stop."""
    evidence = Evidence(payload)
    evidence.add_reply(number, found)
    (reply,) = evidence.take().replies
    return described(reply.explanation, escaped(reply.received.data))
