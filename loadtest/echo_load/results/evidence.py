"""The evidence of failures in a result: the first wrong replies, and the first other failures."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import Any, TypeVar

import msgspec

from echo_load.engines.evidence import MOST_OF_A_KIND, Excerpt, Found, FoundFailure, FoundReply

_LEAST_PRINTABLE, _MOST_PRINTABLE = ord(" "), ord("~")
# Each byte as text.
_ESCAPED = [
    chr(byte) if _LEAST_PRINTABLE <= byte <= _MOST_PRINTABLE else f"\\x{byte:02x}"
    for byte in range(256)
]
for _byte, _text in ((b"\t", r"\t"), (b"\n", r"\n"), (b"\r", r"\r"), (b"\\", r"\\")):
    _ESCAPED[_byte[0]] = _text


class Bytes(msgspec.Struct, frozen=True, kw_only=True):
    r"""Up to 32 bytes of a message or of a reply.

    Attributes:
        size: size of the whole message or reply in bytes; 0 if there was none.
        hex: the bytes as hexadecimal digits.
        text: the bytes as text: printable ASCII as it is, a backslash as `\\`, and any other byte
            as `\r`, `\n`, `\t` or `\xNN`.
    """

    size: int
    hex: str
    text: str

    @classmethod
    def of(cls, excerpt: Excerpt) -> Bytes:
        """Return the bytes of an excerpt in both forms."""
        return cls(size=excerpt.size, hex=excerpt.data.hex(), text=escaped(excerpt.data))

    @property
    def data(self) -> bytes:
        """The bytes.

        Raises:
            ValueError: the digits are not hexadecimal.
        """
        return bytes.fromhex(self.hex)


class WrongReply(msgspec.Struct, frozen=True, kw_only=True):
    """A reply that differs from its message, or that arrived at the wrong time.

    Attributes:
        kind: kind of the failure, such as `corrupt`, as in `errors`. A reply of which only a part
            was received has the kind of the failure that ended it, such as `truncated`, `timeout`
            or `reset`.
        target: URL of the service.
        connection: number of the connection, from 1.
        message: number of the message on this connection, from 0, whose reply is wrong; if no reply
            was expected, that of the last message sent, or None if there was none.
        seconds: seconds since the first stage began; negative before, None if it never began.
        at: when it was noticed (ISO 8601, UTC).
        explanation: what is wrong, in words.
        offset: number of the first byte that differs, from 0; None if no reply was expected, or if
            all bytes are right and arrived at the wrong time.
        begin: number of the first byte of `sent` and of `received`, from 0.
        sent: the expected bytes.
        received: the received bytes.
    """

    kind: str
    target: str
    connection: int
    message: int | None
    seconds: float | None
    at: str
    explanation: str
    offset: int | None
    begin: int
    sent: Bytes
    received: Bytes


class FirstFailure(msgspec.Struct, frozen=True, kw_only=True):
    """The first failure of a kind, other than a wrong reply.

    Attributes:
        kind: kind of the failure, such as `refused` or `handshake`, as in `errors`.
        target: URL of the service.
        connection: number of the connection, from 1.
        message: number of the oldest message on this connection, from 0, that was not answered;
            None if there was none.
        seconds: seconds since the first stage began; negative before, None if it never began.
        at: when it was noticed (ISO 8601, UTC).
        reason: error text of the operating system or of OpenSSL, or the event that did not happen
            in time.
    """

    kind: str
    target: str
    connection: int
    message: int | None
    seconds: float | None
    at: str
    reason: str


_One = TypeVar("_One", WrongReply, FirstFailure)


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """The first failures of each kind, over all generators, stages and repeats.

    Attributes:
        wrong_replies: up to five wrong replies of each kind, the earliest first.
        failures: the first failure of each other kind, the earliest first.
    """

    wrong_replies: tuple[WrongReply, ...] = ()
    failures: tuple[FirstFailure, ...] = ()

    @property
    def first(self) -> str | None:
        """The first wrong reply, or else the first failure, in words; None without both."""
        for reply in self.wrong_replies:
            return described(reply.explanation, reply.received.text)
        return self.failures[0].reason if self.failures else None

    def replies_by_kind(self) -> dict[str, list[WrongReply]]:
        """Return the wrong replies of each kind, in the order of the first of each."""
        by_kind: dict[str, list[WrongReply]] = {}
        for one in self.wrong_replies:
            by_kind.setdefault(one.kind, []).append(one)
        return by_kind


def earliest(several: Iterable[Evidence]) -> Evidence:
    """Return the earliest failures of each kind from several results, without duplicates."""
    together = list(several)
    return Evidence(
        wrong_replies=_earliest((one.wrong_replies for one in together), MOST_OF_A_KIND),
        failures=_earliest((one.failures for one in together), 1),
    )


def _earliest(several: Iterable[Iterable[_One]], most: int) -> tuple[_One, ...]:
    kinds: Counter[str] = Counter()
    kept = []
    for one in sorted(dict.fromkeys(chain.from_iterable(several)), key=lambda one: one.at):
        if kinds[one.kind] < most:
            kinds[one.kind] += 1
            kept.append(one)
    return tuple(kept)


def described(explanation: str, received: str) -> str:
    """Return what is wrong with a reply, and the received bytes as text if there are any."""
    return f"{explanation}; received {received}" if received else explanation


def escaped(data: bytes) -> str:
    """Return bytes as printable ASCII, with other bytes and backslashes escaped."""
    return "".join(map(_ESCAPED.__getitem__, data))


def evidence_of(
    found: Found,
    errors: Mapping[str, int],
    targets: Sequence[str],
    begin_ns: int | None,
) -> Evidence:
    """Return the evidence of a test.

    Args:
        found: failures that its generators found.
        errors: number of failures by kind. A kind whose number is 0 again, because lost datagrams
            have arrived late, has no evidence.
        targets: URLs of the targets, which connections use in turn.
        begin_ns: instant at which the first stage began, in nanoseconds of the monotonic clock;
            None if it never did.
    """
    wall_clock_ns = time.time_ns() - time.monotonic_ns()

    def circumstances(one: FoundReply | FoundFailure) -> dict[str, Any]:
        at = datetime.fromtimestamp((wall_clock_ns + one.at_ns) / 1e9, UTC)
        return {
            "kind": one.kind,
            "target": targets[(one.connection - 1) % len(targets)],
            "connection": one.connection,
            "message": one.message,
            "seconds": None if begin_ns is None else (one.at_ns - begin_ns) / 1e9,
            "at": at.isoformat(timespec="microseconds"),
        }

    return Evidence(
        wrong_replies=tuple(
            WrongReply(
                **circumstances(one),
                explanation=one.explanation,
                offset=one.offset,
                begin=one.begin,
                sent=Bytes.of(one.sent),
                received=Bytes.of(one.received),
            )
            for one in found.replies
            if errors.get(one.kind)
        ),
        failures=tuple(
            FirstFailure(**circumstances(one), reason=one.reason)
            for one in found.failures
            if errors.get(one.kind)
        ),
    )
