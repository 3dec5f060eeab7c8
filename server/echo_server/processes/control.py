"""The messages between a supervisor and its workers.

They are sent over a pair of connected sockets that preserve message boundaries (SOCK_SEQPACKET,
unix(7)). A message is a JSON array of its kind and its fields; listeners are passed with it as
descriptors (SCM_RIGHTS). This module works in a supervisor, which is never monkey-patched, and in a
worker, which is.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from typing import NamedTuple, Self

# The maximum number of descriptors in a message: SCM_MAX_FD of include/net/scm.h.
MAX_DESCRIPTORS = 253
_MAX_MESSAGE_BYTES = 65536


class Serving(NamedTuple):
    """To the supervisor: the worker serves, with these settings, which it has read itself."""

    drain_timeout: float
    max_connections: int | None


class Replace(NamedTuple):
    """To the supervisor: the worker has received a stop signal; replace it before it stops."""

    reason: str


class Refused(NamedTuple):
    """To the supervisor: the worker has no descriptors left for the listeners of another slot."""

    slot: int


class Drain(NamedTuple):
    """To a worker: drain and exit; `final` if no other worker will serve its listeners."""

    final: bool


class Adopt(NamedTuple):
    """To a worker: serve the listeners of another slot, too, which have these schemes."""

    slot: int
    schemes: Sequence[str]


class Release(NamedTuple):
    """To a worker: close the listeners of another slot."""

    slot: int


class Unknown(NamedTuple):
    """A message from another version of this program."""

    text: str


Message = Serving | Replace | Refused | Drain | Adopt | Release | Unknown
_KINDS = {kind.__name__: kind for kind in (Serving, Replace, Refused, Drain, Adopt, Release)}


class ControlSocket:
    """One end of the connection between a supervisor and a worker.

    Args:
        connected: one of a pair of sockets; `close` closes it.
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
        """Close this end; the other end then receives the end of the stream."""
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
            # Not an error: a worker that has exited is reaped, and one that hangs misses its
            # deadline.
            return False
        return True

    def receive(self) -> tuple[Message, list[int]] | None:
        """Return the next message and its descriptors; None once the other end is closed.

        If this process reaches its limit on descriptors, fewer are received than were sent.
        """
        try:
            data, descriptors, _, _ = socket.recv_fds(
                self._socket, _MAX_MESSAGE_BYTES, MAX_DESCRIPTORS
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
