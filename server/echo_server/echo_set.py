"""The hot path: connections that are echoed without a greenlet or a watcher each.

Every byte received is sent back, in order (RFC 862). A connection whose peer does not read is
not read from either, so that it never holds more than one receive buffer. A peer that shuts down
its writing half gets everything it sent; then the connection is closed.
"""

from __future__ import annotations

import _socket
import select
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import structlog
from gevent import monkey
from gevent.event import Event
from gevent.hub import get_hub

log = structlog.get_logger()

# At 16 KiB messages a buffer of 256 KiB was 40 % slower: it no longer fits the L1 and L2 caches.
BUFFER_SIZE = 64 * 1024
# Connections a wake-up serves before the hub gets to run everything else.
BATCH = 256
# Slicing a memoryview costs as much as looking up the connection; small slices are made once.
SMALL = 2048

# The same values for epoll (EPOLLIN, EPOLLOUT) and poll(2) everywhere.
READABLE = 0x001
WRITABLE = 0x004
# gevent's own numbers for the events of a watcher.
_HUB_READ = 1
_HUB_WRITE = 2


class Connection(_socket.socket):
    """An accepted connection: a raw non-blocking socket and what belongs to it.

    Attributes:
        peer: the address at the other end, where something wants to name it.
        unsent: bytes received and not yet sent back; empty while the connection is read.
    """

    __slots__ = ("peer", "unsent")

    peer: object
    unsent: bytes | memoryview


class EchoSet(ABC):
    """Connections that are echoed by one callback of the hub.

    Subclasses say how readiness is learned; the echoing is the same for all.

    Attributes:
        connections: the open connections by descriptor.
    """

    def __init__(self) -> None:
        self.connections: dict[int, Connection] = {}
        self._hub = get_hub()
        self._buffer = bytearray(BUFFER_SIZE)
        self._whole = memoryview(self._buffer)
        self._small = [self._whole[:size] for size in range(SMALL + 1)]
        self._empty = Event()

    def __len__(self) -> int:
        return len(self.connections)

    def add(self, connection: Connection) -> None:
        """Echo this connection from now on, until it ends; it must be non-blocking.

        Raises:
            OSError: its descriptor cannot be watched.
        """
        connection.unsent = b""
        self._watch(connection, READABLE)
        self.connections[connection.fileno()] = connection

    def join(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until no connection is open; False if one still is."""
        if self.connections:
            self._empty.clear()
            self._empty.wait(timeout)
        return not self.connections

    def close(self) -> None:
        """Close every connection, and stop watching for good."""
        for connection in list(self.connections.values()):
            self._end(connection, "server stopped")

    def echo(self, ready: Iterable[tuple[int, int]]) -> None:
        """Serve the connections that are ready, each a descriptor and its events.

        Whatever goes wrong with a connection ends that connection and no other.
        """
        connections = self.connections
        buffer, whole, small = self._buffer, self._whole, self._small
        for descriptor, events in ready:
            connection = connections[descriptor]
            try:
                if not events & READABLE:
                    self._send_rest(connection)
                    continue
                try:
                    received = connection.recv_into(buffer)
                except BlockingIOError:
                    continue
                if not received:
                    self._end(connection, "end of stream")
                    continue
                view = small[received] if received <= SMALL else whole[:received]
                try:
                    sent = connection.send(view)
                except BlockingIOError:
                    sent = 0
                if sent < received:
                    connection.unsent = bytes(view[sent:])
                    self._change(connection, WRITABLE)
            except OSError as error:
                self._end(connection, error.strerror or repr(error))
            except Exception:
                log.exception("connection failed", peer=connection.peer)
                self._end(connection, "internal error")

    def _send_rest(self, connection: Connection) -> None:
        """Send what did not fit before; once all of it is gone, read again."""
        try:
            sent = connection.send(connection.unsent)
        except BlockingIOError:
            return
        if sent < len(connection.unsent):
            connection.unsent = connection.unsent[sent:]
        else:
            connection.unsent = b""
            self._change(connection, READABLE)

    def _end(self, connection: Connection, reason: str) -> None:
        del self.connections[connection.fileno()]
        self._forget(connection)
        connection.close()
        log.debug("connection closed", peer=connection.peer, reason=reason)
        if not self.connections:
            self._empty.set()

    @abstractmethod
    def _watch(self, connection: Connection, events: int) -> None:
        """Begin to watch a connection for an event."""

    @abstractmethod
    def _change(self, connection: Connection, events: int) -> None:
        """Watch a connection for another event."""

    @abstractmethod
    def _forget(self, connection: Connection) -> None:
        """Stop watching a connection, which is about to be closed."""


class EpollEchoSet(EchoSet):
    """One epoll set (epoll(7)) for all connections, and one watcher of the hub on it.

    The hub is told once a batch what would otherwise cost it a watcher and a callback a
    connection.
    """

    def __init__(self) -> None:
        super().__init__()
        # Monkey-patching takes epoll out of the select module.
        self._epoll: select.epoll = monkey.get_original("select", "epoll")()
        self._watcher = self._hub.loop.io(self._epoll.fileno(), _HUB_READ)
        self._watcher.start(self._on_ready)

    def close(self) -> None:
        """Close every connection, and stop watching for good."""
        super().close()
        self._watcher.stop()
        self._watcher.close()
        self._epoll.close()

    def _on_ready(self) -> None:
        # An exception that left a callback of the hub would stop its watcher for ever.
        try:
            self.echo(self._epoll.poll(0, BATCH))
        except Exception:
            log.exception("echo set failed")

    def _watch(self, connection: Connection, events: int) -> None:
        self._epoll.register(connection.fileno(), events)

    def _change(self, connection: Connection, events: int) -> None:
        self._epoll.modify(connection.fileno(), events)

    def _forget(self, connection: Connection) -> None:
        """Do nothing: closing the socket takes it out of the epoll set."""


class WatcherEchoSet(EchoSet):
    """A persistent watcher of the hub for each connection, where there is no epoll."""

    def __init__(self) -> None:
        super().__init__()
        self._watchers: dict[int, Any] = {}

    def _on_ready(self, descriptor: int, events: int) -> None:
        try:
            self.echo(((descriptor, events),))
        except Exception:
            log.exception("echo set failed")

    def _watch(self, connection: Connection, events: int) -> None:
        descriptor = connection.fileno()
        watcher = self._hub.loop.io(descriptor, _HUB_READ if events == READABLE else _HUB_WRITE)
        watcher.start(self._on_ready, descriptor, events)
        self._watchers[descriptor] = watcher

    def _change(self, connection: Connection, events: int) -> None:
        self._forget(connection)
        self._watch(connection, events)

    def _forget(self, connection: Connection) -> None:
        watcher = self._watchers.pop(connection.fileno())
        watcher.stop()
        watcher.close()


def best_echo_set() -> EchoSet:
    """The fastest kind of echo set that this system has; make it after any fork."""
    return EpollEchoSet() if hasattr(select, "EPOLLIN") else WatcherEchoSet()
