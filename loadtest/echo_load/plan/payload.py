"""The messages that are sent to an echo service, and the check of the replies.

A payload makes every message from the number of its connection and its own number in it, so that
none has to be kept to know what must come back, and a wrong reply can be named.
"""

from __future__ import annotations

import random
import struct
from abc import ABC
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from echo_client.failure_kinds import FailureKind


class Stamp(NamedTuple):
    """The header of a message.

    Attributes:
        connection: the number of the connection that it was made for.
        sequence: its own number in that connection, from 0.
    """

    connection: int
    sequence: int


class Payload(ABC):
    """The messages of a test.

    Attributes:
        largest: bytes of the longest message.
        tails: of each sequence what follows the head; None where a message is no head and tail.
    """

    largest: int
    tails: Tails | None = None

    def head(self, connection: int) -> bytes:  # noqa: ARG002  # of those that have none
        """Return the beginning that all messages of a connection have in common; a tail follows."""
        return b""

    def message(self, connection: int, sequence: int) -> bytes:
        """The message with this number in the connection with this number."""
        assert self.tails is not None
        return self.head(connection) + self.tails[sequence]

    def stamp(self, data: bytes) -> Stamp | None:  # noqa: ARG002  # of those that have none
        """Read what a message, or its first part, says of itself; None if it says nothing."""
        return None

    def diagnose(self, connection: int, sequence: int, got: bytes) -> FailureKind:
        """Name what is wrong with bytes that came in the place of a message.

        Args:
            connection: the connection that they came on.
            sequence: the message that was due.
            got: as many bytes as it has, or fewer if no more came.
        """
        stamp = self.stamp(got)
        if stamp is None or stamp == (connection, sequence):
            due = self.message(connection, sequence)
            return (
                FailureKind.TRUNCATED
                if len(got) < len(due) and due.startswith(got)
                else FailureKind.CORRUPT
            )
        if stamp.connection != connection:
            return FailureKind.FOREIGN
        return FailureKind.DUPLICATED if stamp.sequence < sequence else FailureKind.REORDERED

    def diagnose_surplus(self, connection: int, sequence: int, got: bytes) -> FailureKind:
        """Name what bytes are that came when nothing was due.

        Args:
            connection: the connection that they came on.
            sequence: the message that was due last; -1 if none has left yet.
            got: at least one byte.
        """
        stamp = self.stamp(got)
        if stamp is not None:
            return FailureKind.DUPLICATED if stamp.connection == connection else FailureKind.FOREIGN
        if sequence < 0:
            return FailureKind.FOREIGN
        last = self.message(connection, sequence)
        return (
            FailureKind.DUPLICATED
            if last.startswith(got) or got.startswith(last)
            else FailureKind.FOREIGN
        )


class HelloPayload(Payload):
    """The stress test's messages: `hello 0`, `hello 1` and on."""

    largest = len("hello ") + 19

    def __init__(self) -> None:
        self.tails = Tails(_hello, self.largest)


class FixedPayload(Payload):
    """The same message again and again.

    Args:
        content: the message, at least one byte.
    """

    def __init__(self, content: bytes) -> None:
        self.largest = len(content)
        self.tails = Tails(partial(_same, content), 0)


class StampedPayload(Payload):
    """Messages of one size or of many that say whose they are, filled up with noise.

    A stamp has 24 bytes: the run, the connection and a check over both, the sequence and a check
    over it. One changed byte never makes another message's stamp of it. Messages of fewer bytes
    carry its end, which differs from message to message, and cannot be told apart from corrupt
    ones.

    Args:
        least: bytes of the smallest message, at least 1.
        most: bytes of the largest message.
        run: number of the run, up to 32 bits: messages of another run are foreign.
    """

    def __init__(self, least: int, most: int, run: int) -> None:
        self.largest = most
        self._run = run
        self._least = least
        self._sizes = most - least + 1
        self._noise = random.Random(run).randbytes(max(0, most - STAMP_BYTES))  # noqa: S311
        if least == most >= STAMP_BYTES:
            self.tails = Tails(partial(_numbered, self._noise), most)

    def head(self, connection: int) -> bytes:
        """The run, the connection and their check."""
        return _HEAD.pack(self._run, connection, _check(connection, self._run))

    def message(self, connection: int, sequence: int) -> bytes:
        """The stamp and as much noise as the size of this message takes."""
        size = self._least
        if self._sizes > 1:
            mixed = (sequence * _MIX + connection * _MIX_CONNECTION) & _64_BITS
            size += (mixed >> 32) * self._sizes >> 32
        message = self.head(connection) + _numbered(self._noise, sequence)
        return message[:size] if size >= STAMP_BYTES else message[STAMP_BYTES - size : STAMP_BYTES]

    def diagnose(self, connection: int, sequence: int, got: bytes) -> FailureKind:
        """Name what is wrong with bytes that came in the place of a message."""
        if len(got) >= STAMP_BYTES:
            run, number, check = _HEAD.unpack_from(got)
            if run != self._run and check == _check(number, run):
                return FailureKind.FOREIGN
        return super().diagnose(connection, sequence, got)

    def stamp(self, data: bytes) -> Stamp | None:
        """Read what a message, or its first part, says of itself; None if not of this run."""
        if len(data) < STAMP_BYTES:
            return None
        _, connection, _ = _HEAD.unpack_from(data)
        sequence, _ = _TAIL.unpack_from(data, _HEAD.size)
        message = self.message(connection, sequence)
        whole = data.startswith(message) or message.startswith(data)
        return Stamp(connection, sequence) if whole else None


class Tails(dict[int, bytes]):
    """Ends of messages by sequence: made when first asked for, and kept for other connections.

    Args:
        make: makes one.
        size: bytes of a large one, for how many to keep.
    """

    def __init__(self, make: Callable[[int], bytes], size: int) -> None:
        super().__init__()
        self._make = make
        self._size = size
        self._most = max(1, _BYTES_OF_TAILS // (size + _BYTES_OF_ENTRY))

    def __missing__(self, sequence: int) -> bytes:
        if len(self) >= self._most:
            self.clear()
        tail = self[sequence] = self._make(sequence)
        return tail

    def __reduce__(self) -> tuple[type[Tails], tuple[Callable[[int], bytes], int]]:
        """Leave what was made behind: the other process makes its own."""
        return Tails, (self._make, self._size)


def _hello(sequence: int) -> bytes:
    return b"hello %d" % sequence


def _same(content: bytes, _sequence: int) -> bytes:
    return content


def _numbered(noise: bytes, sequence: int) -> bytes:
    return _TAIL.pack(sequence, _check(sequence, 0)) + noise


def _check(number: int, salt: int) -> int:
    """32 bits that any changed byte of a number changes: the middle of a product."""
    return ((number ^ salt << 13) * _MIX >> 32) & 0xFFFF_FFFF


# Run, connection, check; sequence, check.
_HEAD = struct.Struct(">III")
_TAIL = struct.Struct(">QI")
STAMP_BYTES = _HEAD.size + _TAIL.size
_BYTES_OF_TAILS = 4 << 20
_BYTES_OF_ENTRY = 150
# Sizes that look drawn, and are worked out: the fractional parts of multiples of irrational
# numbers (D. E. Knuth, The Art of Computer Programming, volume 3, section 6.4).
_64_BITS = (1 << 64) - 1
_MIX = 0x9E37_79B9_7F4A_7C15
_MIX_CONNECTION = 0xC2B2_AE3D_27D4_EB4F
