"""Accepting of connections, and their handover to the echo set."""

from __future__ import annotations

import errno
import math
import os
import select
import socket
import time
from typing import Any, cast

import gevent
import structlog
from gevent import monkey
from gevent.event import Event
from gevent.pool import Group
from gevent.server import StreamServer

from echo_server.errors import HandshakeError
from echo_server.metrics.counters import Counter, Counters
from echo_server.streams.admission import WARNING_PERIOD_SECONDS, Admission
from echo_server.streams.connection import Connection, peer_name
from echo_server.streams.echo_set import EchoSet
from echo_server.streams.handshake import Handshake
from echo_server.streams.tls import TlsConnection

log = structlog.get_logger()

# The connection died in the queue, or the network failed it: accept(2) says to treat these as
# nothing to accept and to go on.
_LOST_BEFORE_ACCEPT = frozenset(
    {
        errno.ECONNABORTED,
        errno.EPROTO,
        errno.EPERM,
        errno.ENETDOWN,
        errno.ENOPROTOOPT,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.EOPNOTSUPP,
        errno.ENETUNREACH,
        errno.ETIMEDOUT,
    }
)
# After any other error (no descriptor left: EMFILE, ENFILE; no memory: ENOBUFS, ENOMEM) the
# connection stays in the queue, and accepting waits until something may have been given back.
PAUSE_SECONDS = 0.1


class EchoServer(StreamServer):
    """A gevent StreamServer that passes every connection it accepts to an echo set.

    Connections are accepted as raw sockets: no greenlet is started for them. An error while
    accepting costs at most the connection it belongs to. When descriptors or memory run out,
    accepting pauses, is tried again every `PAUSE_SECONDS`, and says so once a period.

    Args:
        listener: a listening, non-blocking socket; `stop` closes it.
        echo_set: where the connections are echoed.
        admission: the limits on connections.
        counters: where errors are counted.
        backlog: the length of the listener's queue.
        handshake: performed before the echo, in a greenlet per connection; None for no handshake.
    """

    def __init__(
        self,
        listener: socket.socket,
        echo_set: EchoSet,
        admission: Admission,
        counters: Counters,
        backlog: int,
        handshake: Handshake | None = None,
    ) -> None:
        self._handshake = handshake
        self._in_handshake = Group()
        self._shaking_hands: set[Connection] = set()
        self._kind = TlsConnection if handshake and handshake.speaks_tls else Connection
        self._echo_set = echo_set
        self._admission = admission
        self._counters = counters
        self._failures = 0
        self._warned_at = -math.inf
        self._short_of_resources = False
        self._finishing_queue = False
        self._closed = Event()
        # The stubs ask for gevent's own socket class; gevent itself takes any listener.
        super().__init__(cast("Any", listener))
        self.backlog = backlog

    def handle(self, connection: Any, sockaddr: object) -> None:
        """Admit a connection, and echo it at once or after its handshake."""
        connection.setblocking(False)
        connection.sockaddr = sockaddr
        if self.family == socket.AF_UNIX:
            # Not inherited from the listener, as it is in TCP.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        if not self._admission.admit(connection, identified=self._handshake is None):
            connection.close()
        elif self._handshake is None:
            self._echo(connection)
        else:
            self._shaking_hands.add(connection)
            self._in_handshake.spawn(self._shake_hands, connection, self._handshake)

    def do_read(self) -> Any:
        """Accept one connection for StreamServer's accept loop; return None to end a wake-up."""
        if not self._admission.waits:
            return self._accept()
        if not self._admission.reserve():
            self._wait_for_a_release()
            return None
        accepted = self._accept()
        if accepted is None:
            self._admission.cancel()
        return accepted

    def do_handle(self, connection: Any, sockaddr: object) -> None:
        """Admit an accepted connection; a failure closes it but does not stop accepting."""
        try:
            self.handle(connection, sockaddr)
        except Exception:
            log.exception("connection failed", peer=peer_name(sockaddr))
            connection.close()

    def join_handshakes(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for connections that are not echoed yet, then close them."""
        self._in_handshake.join(timeout)
        self._in_handshake.kill()
        # A greenlet that was killed before it started has not closed its connection.
        for connection in list(self._shaking_hands):
            self._give_up(connection, Counter.CLOSED_SERVER_STOPPED, "server stopped")

    def stop(self, timeout: float | None = None) -> None:
        """Accept the connections in the backlog that the limits admit, then close the listener."""
        self._accept_queue()
        super().stop(timeout)

    def close(self) -> None:
        """Close the listener; its backlog is left to other processes that share it."""
        super().close()
        self._closed.set()

    def finish_queue(self) -> None:
        """Accept the connections in the backlog, as soon as the limits admit them.

        Once the queue is empty the listener closes; echoing goes on.
        """
        self._finishing_queue = True
        if self._accept_queue() or not self._is_waited_for():
            self.close()

    def join_queue(self, timeout: float) -> None:
        """Wait up to `timeout` seconds until the listener is closed; then close its backlog."""
        deadline = time.monotonic() + timeout
        # The result of `wait` is ignored: it may time out just as the listener is closed.
        while not self._closed.is_set():
            left = deadline - time.monotonic()
            if left <= 0 or not self._is_waited_for():
                self._close_queue()
                return
            self._closed.wait(min(PAUSE_SECONDS, left))

    def _close_queue(self) -> None:
        if self._is_waited_for():
            turned_away = 0
            while turned_away <= self.backlog and self._turn_away():
                turned_away += 1
            log.warning("closing connections that waited to be accepted", waiting=turned_away)
        self.close()

    @property
    def has_handshakes(self) -> bool:
        """True if there are accepted connections that are not echoed yet."""
        return bool(self._shaking_hands)

    def _accept_queue(self) -> bool:
        """Accept as much of the backlog as the limits admit; return False if more may wait."""
        # The kernel queues one connection more than the backlog.
        for _ in range(self.backlog + 1):
            accepted = self.do_read()
            if accepted is None:
                return self.closed
            self.do_handle(*accepted)
        return True

    def _is_waited_for(self) -> bool:
        # gevent's poll reports what the loop has seen, and so may miss a new connection.
        poll: select.poll = monkey.get_original("select", "poll")()
        poll.register(self.socket, select.POLLIN)
        return bool(poll.poll(0))

    def _turn_away(self) -> bool:
        try:
            descriptor, _ = cast("Any", self.socket)._accept()  # noqa: SLF001  # without a wrapper
        except OSError:
            return False
        os.close(descriptor)
        self._counters.add(Counter.REJECTED_MAX_CONNECTIONS)
        return True

    def _echo(self, connection: Connection) -> None:
        try:
            self._echo_set.add(connection)
        except Exception:
            self._admission.release(connection, Counter.CLOSED_ERROR)
            raise

    def _shake_hands(self, connection: Connection, handshake: Handshake) -> None:
        try:
            handshake.perform(connection)
        except HandshakeError as error:
            self._give_up(connection, error.counted, str(error))
        except gevent.GreenletExit:
            self._give_up(connection, Counter.CLOSED_SERVER_STOPPED, "server stopped")
        except Exception:
            log.exception("connection failed", peer=connection.peer)
            self._give_up(connection, Counter.CLOSED_ERROR, "internal error")
        else:
            self._shaking_hands.discard(connection)
            self._echo_identified(connection)

    def _echo_identified(self, connection: Connection) -> None:
        if not self._admission.identify(connection):
            self._give_up(connection, Counter.CLOSED_REJECTED, "too many from its address")
            return
        try:
            self._echo(connection)
        except Exception:
            log.exception("connection failed", peer=connection.peer)
            connection.close()

    def _give_up(self, connection: Connection, reason: Counter, why: str) -> None:
        self._shaking_hands.discard(connection)
        self._admission.release(connection, reason, why)
        connection.close()

    def _accept(self) -> tuple[Connection, object] | None:
        try:
            descriptor, sockaddr = cast("Any", self.socket)._accept()  # noqa: SLF001  # without a wrapper
        except BlockingIOError:
            self._queue_is_empty()
            return None
        except OSError as error:
            self._counters.add(Counter.ACCEPT_ERRORS)
            if error.errno not in _LOST_BEFORE_ACCEPT:
                self._pause(error)
            return None
        except Exception as error:
            self._counters.add(Counter.ACCEPT_ERRORS)
            log.exception("accepting failed")
            self._pause(error)
            return None
        try:
            return self._kind(self.family, socket.SOCK_STREAM, 0, fileno=descriptor), sockaddr
        except Exception:
            log.exception("connection failed", peer=peer_name(sockaddr))
            os.close(descriptor)
            return None

    def _pause(self, error: Exception) -> None:
        self._failures += 1
        self._stop_accepting_for_a_while()
        now = time.monotonic()
        if now - self._warned_at >= WARNING_PERIOD_SECONDS:
            log.warning(
                "accepting paused",
                reason=error.strerror if isinstance(error, OSError) else repr(error),
                failures=self._failures,
                open=len(self._echo_set),
                retry_seconds=PAUSE_SECONDS,
            )
            self._warned_at = now
            self._short_of_resources = True

    def _wait_for_a_release(self) -> None:
        # Releases by other processes are noticed only by trying again.
        self._stop_accepting_for_a_while()
        self._admission.when_released(self._resume)

    def _stop_accepting_for_a_while(self) -> None:
        self.stop_accepting()
        # StreamServer's own timer for this: `stop_accepting` ends it.
        self._timer = self.loop.timer(PAUSE_SECONDS)
        self._timer.start(self._resume)

    def _resume(self) -> None:
        if self.started:
            self.start_accepting()

    def _queue_is_empty(self) -> None:
        if self._finishing_queue:
            self.close()
        if self._short_of_resources:
            self._short_of_resources = False
            log.info("accepting resumed", open=len(self._echo_set))
