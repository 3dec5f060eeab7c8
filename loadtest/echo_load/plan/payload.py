"""The messages that are sent to an echo service, and the classification of wrong replies.

A payload computes every message from the number of its connection and its sequence number: no
message has to be stored until its reply is checked, and a wrong reply can be classified.
"""

from __future__ import annotations

import random
import struct
from abc import ABC
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from echo_client.failure_kinds import FailureKind

if TYPE_CHECKING:
    import numpy as np

    _Bytes = np.ndarray[Any, np.dtype[np.uint8]]


class Stamp(NamedTuple):
    """The identity of a message.

    Attributes:
        connection: number of its connection.
        sequence: number of the message on that connection, from 0.
    """

    connection: int
    sequence: int


class Payload(ABC):
    """The messages of a test.

    Attributes:
        largest: size of the largest message in bytes.
        tails: the part of each message that follows the head, by sequence number; None if the
            messages cannot be divided in this way.
    """

    largest: int
    tails: Tails | None = None

    def head(self, connection: int) -> bytes:  # noqa: ARG002  # subclasses use it
        """Return the beginning that all messages of a connection share."""
        return b""

    def message(self, connection: int, sequence: int) -> bytes:
        """Return a message."""
        assert self.tails is not None
        return self.head(connection) + self.tails[sequence]

    def run(self, connection: int, first: int, count: int) -> tuple[bytes, Sequence[int]]:
        """Return consecutive messages as one byte string, and the offset at which each ends.

        Args:
            connection: number of their connection.
            first: sequence number of the first message.
            count: number of messages, at least 1.
        """
        messages = [self.message(connection, first + index) for index in range(count)]
        return b"".join(messages), tuple(accumulate(map(len, messages)))

    def stamp(self, data: bytes) -> Stamp | None:  # noqa: ARG002  # subclasses use it
        """Return the stamp of a message or of its beginning; None if it has none."""
        return None

    def diagnose(self, connection: int, sequence: int, got: bytes) -> FailureKind:
        """Classify bytes that arrived in place of a reply.

        Args:
            connection: number of the connection on which they arrived.
            sequence: number of the message whose reply was expected.
            got: as many bytes as the message has, or fewer if no more arrived.
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
        """Classify bytes that arrived when no reply was expected.

        Args:
            connection: number of the connection on which they arrived.
            sequence: number of the last message that was sent; -1 if none was.
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
    """The messages of the stress test: `hello 0`, `hello 1` and so on."""

    largest = len("hello ") + 19

    def __init__(self) -> None:
        self.tails = Tails(_hello, self.largest)


class FixedPayload(Payload):
    """The same message every time.

    Args:
        content: the message, of at least one byte.
    """

    def __init__(self, content: bytes) -> None:
        self.largest = len(content)
        self.tails = Tails(partial(_same, content), 0)
        self._content = content

    def run(self, connection: int, first: int, count: int) -> tuple[bytes, Sequence[int]]:  # noqa: ARG002
        """Return the message `count` times, and the offset at which each ends."""
        size = self.largest
        return self._content * count, range(size, size * count + 1, size)


class StampedPayload(Payload):
    """Messages of one size or of many, each with a stamp that identifies it, and random padding.

    A stamp has 24 bytes, big-endian: test run (4), connection (4), checksum of both (4), sequence
    number (8) and its checksum (4). Changing one byte never yields the stamp of another message.
    Messages of less than 24 bytes have only the end of a stamp, which differs from message to
    message; any wrong reply to them counts as corrupt or truncated.

    Args:
        least: size of the smallest message in bytes, at least 1.
        most: size of the largest message in bytes.
        run: number of the test run, of up to 32 bits; messages of another run are foreign.
    """

    def __init__(self, least: int, most: int, run: int) -> None:
        self.largest = most
        self._run = run
        self._least = least
        self._sizes = most - least + 1
        self._padding = random.Random(run).randbytes(max(0, most - STAMP_BYTES))  # noqa: S311
        if least == most >= STAMP_BYTES:
            self.tails = Tails(partial(_numbered, self._padding), most)
            self._blocks = _Blocks(self._padding)

    def head(self, connection: int) -> bytes:
        """Return the test run, the connection and their checksum."""
        return _HEAD.pack(self._run, connection, _checksum(connection, self._run))

    def message(self, connection: int, sequence: int) -> bytes:
        """Return the stamp, padded or cut to the size of this message."""
        size = self._least
        if self._sizes > 1:
            mixed = (sequence * _MIX + connection * _MIX_CONNECTION) & _64_BITS
            size += (mixed >> 32) * self._sizes >> 32
        message = self.head(connection) + _numbered(self._padding, sequence)
        return message[:size] if size >= STAMP_BYTES else message[STAMP_BYTES - size : STAMP_BYTES]

    def run(self, connection: int, first: int, count: int) -> tuple[bytes, Sequence[int]]:
        """Return consecutive messages as one byte string, and the offset at which each ends."""
        if self.tails is None:
            return super().run(connection, first, count)
        size = self.largest
        ends = range(size, size * count + 1, size)
        if count <= _MOST_JOINED:
            tails = map(self.tails.__getitem__, range(first, first + count))
            return self.head(connection).join((b"", *tails)), ends
        # Imported here because only generators need it: a command that checks a plan starts faster.
        import numpy as np

        messages = self._blocks.rows(first, count)
        messages[:, : _HEAD.size] = np.frombuffer(self.head(connection), dtype=np.uint8)
        return messages.tobytes(), ends

    def diagnose(self, connection: int, sequence: int, got: bytes) -> FailureKind:
        """Classify bytes that arrived in place of a reply."""
        if len(got) >= STAMP_BYTES:
            run, number, checksum = _HEAD.unpack_from(got)
            if run != self._run and checksum == _checksum(number, run):
                return FailureKind.FOREIGN
        return super().diagnose(connection, sequence, got)

    def stamp(self, data: bytes) -> Stamp | None:
        """Return the stamp of a message or of its beginning; None if it is not of this test run."""
        if len(data) < STAMP_BYTES:
            return None
        _, connection, _ = _HEAD.unpack_from(data)
        sequence, _ = _TAIL.unpack_from(data, _HEAD.size)
        message = self.message(connection, sequence)
        whole = data.startswith(message) or message.startswith(data)
        return Stamp(connection, sequence) if whole else None


class Tails(dict[int, bytes]):
    """A cache of the tails of messages by sequence number, which all connections share.

    Args:
        make: function that returns the tail for a sequence number.
        size: size of the largest tail in bytes, by which the number of cached tails is limited.
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
        """Pickle without the cached tails: the other process computes its own."""
        return Tails, (self._make, self._size)


class _Blocks(dict[int, "_Bytes"]):
    """A cache of stamped messages of one size, without their heads, in blocks of many messages.

    Args:
        padding: bytes that follow the stamp.
    """

    def __init__(self, padding: bytes) -> None:
        super().__init__()
        self._padding = padding
        size = STAMP_BYTES + len(padding)
        self._rows = max(1, min(_MOST_ROWS, _BYTES_OF_BLOCK // size))
        self._most = max(1, _BYTES_OF_TAILS // (self._rows * size))

    def rows(self, first: int, count: int) -> _Bytes:
        """Return a copy of consecutive messages, one per row; the caller writes the heads."""
        block, row = divmod(first, self._rows)
        if row + count <= self._rows:
            return self[block][row : row + count].copy()
        import numpy as np

        parts = [self[block][row:]]
        count -= self._rows - row
        while count > 0:
            block += 1
            parts.append(self[block][:count])
            count -= self._rows
        return np.concatenate(parts)

    def __missing__(self, block: int) -> _Bytes:
        import numpy as np

        if len(self) >= self._most:
            self.clear()
        first = block * self._rows
        numbers = np.arange(first, first + self._rows, dtype=np.uint64)
        tails = np.empty(self._rows, dtype=[("sequence", ">u8"), ("checksum", ">u4")])
        tails["sequence"] = numbers
        # As `_checksum` with a salt of 0.
        tails["checksum"] = (numbers * np.uint64(_MIX) >> np.uint64(32)).astype(np.uint32)
        size = STAMP_BYTES + len(self._padding)
        made = self[block] = np.empty((self._rows, size), dtype=np.uint8)
        made[:, _HEAD.size : STAMP_BYTES] = tails.view(np.uint8).reshape(self._rows, _TAIL.size)
        made[:, STAMP_BYTES:] = np.frombuffer(self._padding, dtype=np.uint8)
        return made

    def __reduce__(self) -> tuple[type[_Blocks], tuple[bytes]]:
        """Pickle without the cached messages: the other process computes its own."""
        return _Blocks, (self._padding,)


def _hello(sequence: int) -> bytes:
    return b"hello %d" % sequence


def _same(content: bytes, _sequence: int) -> bytes:
    return content


def _numbered(padding: bytes, sequence: int) -> bytes:
    return _TAIL.pack(sequence, _checksum(sequence, 0)) + padding


def _checksum(number: int, salt: int) -> int:
    """Return a 32-bit checksum, the middle of a product, that any change of one byte changes."""
    return ((number ^ salt << 13) * _MIX >> 32) & 0xFFFF_FFFF


# Run, connection, checksum; sequence number, checksum.
_HEAD = struct.Struct(">III")
_TAIL = struct.Struct(">QI")
STAMP_BYTES = _HEAD.size + _TAIL.size
# Runs of more messages are made faster by copying a block of them.
_MOST_JOINED = 48
# Messages per block, and bytes per block unless a single message is larger.
_MOST_ROWS = 1024
_BYTES_OF_BLOCK = 64 << 10
# Memory that each cache may take, and the overhead of one entry in it.
_BYTES_OF_TAILS = 4 << 20
_BYTES_OF_ENTRY = 150
# Multiplicative hashing, for evenly distributed sizes: the fractional parts of multiples of
# irrational numbers (D. E. Knuth, The Art of Computer Programming, volume 3, section 6.4).
_64_BITS = (1 << 64) - 1
_MIX = 0x9E37_79B9_7F4A_7C15
_MIX_CONNECTION = 0xC2B2_AE3D_27D4_EB4F
