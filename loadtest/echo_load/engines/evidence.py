"""The evidence of failures: the first wrong replies, and the first other failure, of each kind.

Its size is bounded: it contains a few failures of each kind, and of each wrong reply only the bytes
around the first difference. Right replies take no time here.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import numpy as np

from echo_client.errors import ClientError, LostError
from echo_client.failure_kinds import FailureKind
from echo_core.units import format_count
from echo_load.engines.checking import Difference
from echo_load.plan.payload import Payload

# Number of wrong replies of each kind that are kept.
MOST_OF_A_KIND = 5
# Number of bytes kept around the first one that differs, and number of those before it.
EXCERPT_BYTES = 32
_BYTES_BEFORE = 8


class Excerpt(NamedTuple):
    """A part of a message or of a reply.

    Attributes:
        size: size of the whole message or reply in bytes.
        data: the bytes of the part.
    """

    size: int
    data: bytes


@dataclass(frozen=True, slots=True)
class FoundReply:
    """A wrong reply.

    Attributes:
        kind: kind of failure that it was counted as.
        connection: number of its connection, from 1.
        message: sequence number of the message whose reply is wrong; if no reply was expected, that
            of the last message sent, or None if none was.
        at_ns: instant at which it was noticed, in nanoseconds of the monotonic clock.
        offset: offset of the first byte that differs; None if no reply was expected, or if all
            bytes are right and arrived at the wrong time.
        begin: offset at which both excerpts begin.
        sent: excerpt of the expected reply; empty if no reply was expected.
        received: excerpt of the reply.
        explanation: what is wrong, in words, without a full stop.
    """

    kind: str
    connection: int
    message: int | None
    at_ns: int
    offset: int | None
    begin: int
    sent: Excerpt
    received: Excerpt
    explanation: str


@dataclass(frozen=True, slots=True)
class FoundFailure:
    """The first failure of a kind, other than a wrong reply.

    Attributes:
        kind: kind of failure that it was counted as.
        connection: number of its connection, from 1.
        message: sequence number of the oldest message in flight; None if there was none.
        at_ns: instant at which it was noticed, in nanoseconds of the monotonic clock.
        reason: error text of the operating system or of OpenSSL, or the event that did not happen
            in time.
    """

    kind: str
    connection: int
    message: int | None
    at_ns: int
    reason: str


_Found = TypeVar("_Found", FoundReply, FoundFailure)


@dataclass(slots=True)
class Found:
    """The first failures that one or several generators have found.

    Attributes:
        replies: wrong replies, the earliest first; up to `MOST_OF_A_KIND` of each kind.
        failures: the first failure of each kind, the earliest first.
    """

    replies: list[FoundReply] = field(default_factory=list)
    failures: list[FoundFailure] = field(default_factory=list)

    def add(self, other: Found) -> None:
        """Add the failures of another generator, or later ones of the same; keep the earliest."""
        if other.replies:
            self.replies = _earliest([*self.replies, *other.replies], MOST_OF_A_KIND)
        if other.failures:
            self.failures = _earliest([*self.failures, *other.failures], 1)


def _earliest(found: Iterable[_Found], most: int) -> list[_Found]:
    """Return up to `most` failures of each kind, the earliest first."""
    kept: list[_Found] = []
    kinds: Counter[str] = Counter()
    for one in sorted(found, key=lambda one: one.at_ns):
        if kinds[one.kind] < most:
            kinds[one.kind] += 1
            kept.append(one)
    return kept


class Failure(NamedTuple):
    """A failure that ends a connection.

    Attributes:
        kind: kind of failure that it is counted as.
        reason: error text of the operating system, or the event that did not happen in time.
    """

    kind: FailureKind
    reason: str

    @classmethod
    def of(cls, error: ClientError, cause: BaseException | None = None) -> Failure:
        """Return the failure for an error of the client.

        Args:
            error: the error.
            cause: the exception that the operating system raised; None for the error's cause.
        """
        return cls(error.kind, reason_of(error, cause))


def reason_of(error: ClientError, cause: BaseException | None = None) -> str:
    """Return the text of an error; if a connection broke, with that of the operating system."""
    text, cause = str(error), cause or error.__cause__
    detail = cause.strerror if isinstance(cause, OSError) else None
    if isinstance(error, LostError) and detail and detail not in text:
        return f"{text} ({detail})"
    return text


class Evidence:
    """The first failures of each kind that a generator finds; thread-safe.

    Args:
        payload: messages of the test, whose stamps identify wrong replies; None if not known.
    """

    def __init__(self, payload: Payload | None = None) -> None:
        self._payload = payload
        self._lock = threading.Lock()
        self._noted: Counter[str] = Counter()
        self._failed: set[str] = set()
        self._found = Found()

    def add_reply(self, connection: int, found: Difference) -> None:
        """Keep a wrong reply, unless enough of its kind are kept.

        Args:
            connection: number of its connection.
            found: the wrong reply.
        """
        if self._noted[found.kind] >= MOST_OF_A_KIND:
            return
        with self._lock:
            if self._noted[found.kind] < MOST_OF_A_KIND:
                self._noted[found.kind] += 1
                self._found.replies.append(self._reply(connection, found))

    def add_failure(
        self, connection: int, kind: str, message: int | None, reason: str | Callable[[], str]
    ) -> None:
        """Keep the first failure of a kind.

        Args:
            connection: number of the connection.
            kind: kind of failure that it is counted as.
            message: sequence number of the oldest message in flight; None if there was none.
            reason: reason of the failure, or a function that returns it.
        """
        if kind in self._failed:
            return
        with self._lock:
            if kind not in self._failed:
                self._failed.add(kind)
                text = reason if isinstance(reason, str) else reason()
                now = time.monotonic_ns()
                self._found.failures.append(FoundFailure(kind, connection, message, now, text))

    def take(self) -> Found:
        """Return the failures that were kept since the last call."""
        with self._lock:
            found, self._found = self._found, Found()
        return found

    def _reply(self, connection: int, found: Difference) -> FoundReply:
        due, got = found.due, found.got
        offset, differing = _compare(due, got) if due else (None, 0)
        longest = max(len(due), len(got))
        begin = max(0, min((offset or 0) - _BYTES_BEFORE, longest - EXCERPT_BYTES))
        end = begin + EXCERPT_BYTES
        return FoundReply(
            kind=found.kind,
            connection=connection,
            message=found.sequence if found.sequence >= 0 else None,
            at_ns=time.monotonic_ns(),
            offset=offset,
            begin=begin,
            sent=Excerpt(len(due), due[begin:end]),
            received=Excerpt(len(got), got[begin:end]),
            explanation=found.note or self._explanation(connection, found, offset, differing),
        )

    def _explanation(
        self, connection: int, found: Difference, offset: int | None, differing: int
    ) -> str:
        due, got = found.due, found.got
        named = self._named(connection, got)
        if not due:
            surplus = format_count(len(got), "surplus byte")
            return f"{surplus}: {named}" if named else surplus
        if named and found.kind in _OF_OTHERS:
            return f"{named} came instead"
        if found.kind == FailureKind.FOREIGN:
            return "a message of another test came instead"
        return _difference(found, offset, differing)

    def _named(self, connection: int, got: bytes) -> str | None:
        """Return a description of bytes that have the stamp of a message; None without a stamp."""
        stamp = self._payload.stamp(got) if self._payload is not None else None
        if stamp is None:
            return None
        if stamp.connection != connection:
            return f"message {stamp.sequence} of connection {stamp.connection}"
        return f"the reply to message {stamp.sequence}"


# Kinds of wrong replies that would be right for other messages.
_OF_OTHERS = frozenset({FailureKind.DUPLICATED, FailureKind.REORDERED, FailureKind.FOREIGN})


def _difference(found: Difference, offset: int | None, differing: int) -> str:
    """Return the number and the position of the bytes that differ, in words."""
    due, got = len(found.due), len(found.got)
    if got < due:
        came = f"{got:,} of {due:,} bytes came"
        return came if offset == got else f"{came}; they differ from byte {offset:,} on"
    if differing == 1:
        return f"1 of {due:,} bytes differs: byte {offset:,}"
    if differing == due == got:
        return f"all {due:,} bytes differ"
    return f"{differing:,} of {due:,} bytes differ, from byte {offset:,} on"


def _compare(due: bytes, got: bytes) -> tuple[int | None, int]:
    """Return the offset of the first byte that differs, or None, and the number of those."""
    size = min(len(due), len(got))
    missing = abs(len(due) - len(got))
    if size:
        differs = np.frombuffer(due, np.uint8, size) != np.frombuffer(got, np.uint8, size)
        if count := int(np.count_nonzero(differs)):
            return int(differs.argmax()), count + missing
    return (size, missing) if missing else (None, 0)
