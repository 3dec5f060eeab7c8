"""The messages between a supervisor and its workers.

They are sent over a pair of connected sockets that preserve message boundaries (SOCK_SEQPACKET,
unix(7)). A message is a JSON array of its kind and its fields; listeners are passed with it as
descriptors (SCM_RIGHTS). Plain `socket` code, for the supervisor, which is never monkey-patched,
and for a worker, which is.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from typing import NamedTuple, Self

# The most descriptors in one message: SCM_MAX_FD of include/net/scm.h.
MOST_DESCRIPTORS = 253
_LARGEST_MESSAGE = 65536


class Serving(NamedTuple):
    """A worker serves its listeners; it will drain for up to `drain_timeout` seconds."""

    drain_timeout: float


class Replace(NamedTuple):
    """A worker has received a signal to stop, and requests to be replaced first."""

    reason: str


class Refused(NamedTuple):
    """A worker cannot serve the listeners of another slot: it has no descriptors left."""

    slot: int


class Drain(NamedTuple):
    """The worker is to drain and exit; `final` if no other serves its listeners afterwards."""

    final: bool


class Adopt(NamedTuple):
    """The worker is to serve another slot's listeners, of these schemes, beside its own."""

    slot: int
    schemes: Sequence[str]


class Release(NamedTuple):
    """The worker is to close the listeners of another slot, which is served again."""

    slot: int


class Unknown(NamedTuple):
    """A message from another version of this program."""

    text: str


Message = Serving | Replace | Refused | Drain | Adopt | Release | Unknown
_KINDS = {kind.__name__: kind for kind in (Serving, Replace, Refused, Drain, Adopt, Release)}


class ControlSocket:
    """One end of the connection between a supervisor and a worker.

    Args:
        connected: a socket of a pair; `close` closes it.
    """

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    @classmethod
    def pair(cls) -> tuple[Self, Self]:
        """Return both ends of a new connection; the first is non-blocking."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        return cls(ours), cls(theirs)

    def fileno(self) -> int:
        """Return the descriptor of this end."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close this end; the other end then reads the end of the stream."""
        self._socket.close()

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> bool:
        """Send a message; return False if the other end is closed or its buffer is full."""
        data = json.dumps([type(message).__name__, *message]).encode()
        try:
            if descriptors:
                socket.send_fds(self._socket, [data], descriptors)
            else:
                self._socket.send(data)
        except OSError:
            # A peer that has ended is found out by other means, and one that hangs too.
            return False
        return True

    def receive(self) -> tuple[Message, list[int]] | None:
        """Return the next message and its descriptors; None once the other end is closed.

        Fewer descriptors are received than were sent if this process may not open as many.
        """
        try:
            data, descriptors, _, _ = socket.recv_fds(
                self._socket, _LARGEST_MESSAGE, MOST_DESCRIPTORS
            )
        except ConnectionError:
            return None
        return (_decode(data), descriptors) if data else None


def _decode(data: bytes) -> Message:
    name, *fields = json.loads(data)
    kind = _KINDS.get(name)
    if kind is None or len(fields) != len(kind._fields):
        return Unknown(data.decode())
    return kind(*fields)
