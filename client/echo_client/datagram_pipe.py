"""A pipe over UDP: each line of the input, or the whole input, is one datagram."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from echo_client.connection import CHUNK, EchoConnection
from echo_client.errors import LostDatagramsError
from echo_client.pipe import Sink, Source, read_source
from echo_core.limits import LARGEST_DATAGRAM
from echo_core.units import format_count

# A longer line is cut here; sending it is an error then, as no datagram can hold it.
_TOO_LARGE = max(LARGEST_DATAGRAM.values()) + 1
# The number of earlier datagrams whose second or late replies are recognised.
_REMEMBERED = 100


def lines_of(source: Source) -> Iterator[bytes]:
    """Yield the lines of a source, with their newlines; the last one may have none.

    Raises:
        StreamError: the source cannot be read.
    """
    rest = b""
    while data := read_source(source, CHUNK):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line + b"\n"
        if len(rest) >= _TOO_LARGE:
            break
    if rest:
        yield rest


def whole(source: Source) -> Iterator[bytes]:
    """Yield all data of a source at once, unless there is none.

    Raises:
        StreamError: the source cannot be read.
    """
    found = b""
    while len(found) < _TOO_LARGE and (data := read_source(source, CHUNK)):
        found += data
    if found:
        yield found


# How standard input can be divided into datagrams, by the name that the user gives.
DIVISIONS: dict[str, Callable[[Source], Iterator[bytes]]] = {"lines": lines_of, "input": whole}


@dataclass(slots=True)
class _Counts:
    sent: int = 0
    lost: int = 0
    wrong: int = 0
    repeated: int = 0
    first_failed: int = 0

    def failed(self) -> None:
        self.first_failed = self.first_failed or self.sent


def exchange(
    connection: EchoConnection, messages: Iterable[bytes], timeout: float, sink: Sink
) -> None:
    """Send datagrams one after the other, each when the reply to the previous one has arrived.

    A lost datagram does not end the exchange. Its reply is not passed on if it arrives later, and
    neither is a second reply.

    Args:
        connection: a connection over UDP.
        messages: the datagrams to send, none of them empty.
        timeout: the seconds after which a datagram without a reply is lost.
        sink: called with each reply, right or wrong.

    Raises:
        LostDatagramsError: datagrams were lost, came back wrong, or came back more than once.
        InvalidValueError: a message is larger than a datagram can be.
        ClientError: nothing listens, or a datagram cannot be delivered.
    """
    counts = _Counts()
    earlier: deque[bytes] = deque(maxlen=_REMEMBERED)
    for message in messages:
        connection.send(message)
        counts.sent += 1
        reply = _reply(connection, message, timeout, earlier, counts)
        earlier.append(message)
        if reply is None:
            counts.lost += 1
            counts.failed()
            continue
        sink(reply)
        if reply != message:
            counts.wrong += 1
            counts.failed()
    if counts.first_failed:
        raise LostDatagramsError(_failure(counts))


def _reply(
    connection: EchoConnection,
    message: bytes,
    timeout: float,
    earlier: deque[bytes],
    counts: _Counts,
) -> bytes | None:
    """Return the reply to a datagram, which may be wrong; None if it is lost."""
    deadline = time.monotonic() + timeout
    while (received := connection.idle(deadline - time.monotonic())) is not None:
        if received == message or received not in earlier:
            return received
        counts.repeated += 1
        counts.failed()
    return None


def _failure(counts: _Counts) -> str:
    parts = {
        "lost": counts.lost,
        "wrong": counts.wrong,
        "late or repeated": counts.repeated,
    }
    found = ", ".join(f"{number:,} {name}" for name, number in parts.items() if number)
    return (
        f"of {format_count(counts.sent, 'datagram')}, {found}; the first failure was at datagram "
        f"{counts.first_failed:,}"
    )
