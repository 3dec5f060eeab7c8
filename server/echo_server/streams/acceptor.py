"""Accepting of connections, which are then added to the echo set."""

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

from echo_server.metrics.counters import Counter, Counters
from echo_server.streams.admission import WARNING_PERIOD_SECONDS, Admission
from echo_server.streams.connection import Connection, peer_name
from echo_server.streams.echo_set import EchoSet
from echo_server.streams.handshake import Handshake, HandshakeError
from echo_server.streams.tls import TlsConnection

log = structlog.get_logger()

# The connection failed while it was in the backlog. accept(2) recommends treating these errors like
# EAGAIN and continuing.
_FAILED_IN_BACKLOG = frozenset(
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
# The pause after any other error, such as EMFILE, ENFILE, ENOBUFS or ENOMEM. The connection stays
# in the backlog until descriptors or memory may be available again.
PAUSE_SECONDS = 0.1


class EchoServer(StreamServer):
    """A gevent StreamServer that passes every connection it accepts to an echo set.

    Connections are accepted as raw sockets, without a greenlet for each. An error affects at most
    the connection that it belongs to. When descriptors or memory run out, accepting pauses and is
    retried every `PAUSE_SECONDS`; a warning is logged once per `WARNING_PERIOD_SECONDS`.

    Args:
        listener: a listening, non-blocking socket; `stop` closes it.
        echo_set: the echo set to add the connections to.
        admission: the limits on connections.
        counters: the counters for errors and rejected connections.
        backlog: the backlog of the listener, in connections.
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
        self._handshakes = Group()
        self._in_handshake: set[Connection] = set()
        self._connection_class = TlsConnection if handshake and handshake.speaks_tls else Connection
        self._echo_set = echo_set
        self._admission = admission
        self._counters = counters
        self._failures = 0
        self._warned_at = -math.inf
        self._pause_was_logged = False
        self._is_draining_backlog = False
        self._closed = Event()
        # The type stubs require gevent's socket class; gevent itself accepts any listener.
        super().__init__(cast("Any", listener))
        self.backlog = backlog

    def handle(self, connection: Any, sockaddr: object) -> None:
        """Admit a connection, and echo it at once or after its handshake."""
        connection.setblocking(False)
        connection.sockaddr = sockaddr
        if self.family == socket.AF_UNIX:
            # Unlike TCP connections, unix ones do not inherit it from the listener.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        if not self._admission.admit(connection, address_known=self._handshake is None):
            connection.close()
        elif self._handshake is None:
            self._echo(connection)
        else:
            self._in_handshake.add(connection)
            self._handshakes.spawn(self._perform_handshake, connection, self._handshake)

    def do_read(self) -> Any:
        """Accept a connection for StreamServer's accept loop; None ends this run of the loop."""
        if not self._admission.waits_when_full:
            return self._accept()
        if not self._admission.reserve():
            self._wait_for_release()
            return None
        accepted = self._accept()
        if accepted is None:
            self._admission.cancel()
        return accepted

    def do_handle(self, connection: Any, sockaddr: object) -> None:
        """Handle an accepted connection; a failure closes it but does not stop accepting."""
        try:
            self.handle(connection, sockaddr)
        except Exception:
            log.exception("connection failed", peer=peer_name(sockaddr))
            connection.close()

    def join_handshakes(self, timeout: float) -> None:
        """Wait up to `timeout` seconds until all handshakes have ended; abort the rest."""
        self._handshakes.join(timeout)
        self._handshakes.kill()
        # A greenlet that was killed before it started has not closed its connection.
        for connection in list(self._in_handshake):
            self._abort_handshake(connection, Counter.CLOSED_SERVER_STOPPED, "server stopped")

    def stop(self, timeout: float | None = None) -> None:
        """Accept the connections in the backlog that the limits admit, then close the listener."""
        self._accept_backlog()
        super().stop(timeout)

    def close(self) -> None:
        """Close the listener; other processes that share it serve its backlog."""
        super().close()
        self._closed.set()

    def drain_backlog(self) -> None:
        """Accept the connections in the backlog, as soon as the limits admit them.

        The listener is closed when the backlog is empty; open connections are still served.
        """
        self._is_draining_backlog = True
        if self._accept_backlog() or self._is_backlog_empty():
            self.close()

    def join_backlog(self, timeout: float) -> None:
        """Wait up to `timeout` seconds until the backlog is empty; reject the rest, and close."""
        deadline = time.monotonic() + timeout
        # The result of `wait` is ignored: it may time out just as the listener is closed.
        while not self._closed.is_set():
            left = deadline - time.monotonic()
            if left <= 0 or self._is_backlog_empty():
                self._reject_backlog()
                return
            self._closed.wait(min(PAUSE_SECONDS, left))

    def _reject_backlog(self) -> None:
        if not self._is_backlog_empty():
            rejected = 0
            while rejected <= self.backlog and self._reject_one():
                rejected += 1
            log.warning("closing connections that waited to be accepted", waiting=rejected)
        self.close()

    @property
    def has_handshakes(self) -> bool:
        """True if connections are in their handshake."""
        return bool(self._in_handshake)

    def _accept_backlog(self) -> bool:
        """Accept the backlog as far as the limits admit; return False if some may be left."""
        # Linux queues one connection more than the backlog.
        for _ in range(self.backlog + 1):
            accepted = self.do_read()
            if accepted is None:
                return self.closed
            self.do_handle(*accepted)
        return True

    def _is_backlog_empty(self) -> bool:
        # Not gevent's poll, which depends on the loop and may miss a new connection.
        poll: select.poll = monkey.get_original("select", "poll")()
        poll.register(self.socket, select.POLLIN)
        return not poll.poll(0)

    def _reject_one(self) -> bool:
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

    def _perform_handshake(self, connection: Connection, handshake: Handshake) -> None:
        try:
            handshake.perform(connection)
        except HandshakeError as error:
            self._abort_handshake(connection, error.counter, str(error))
        except gevent.GreenletExit:
            self._abort_handshake(connection, Counter.CLOSED_SERVER_STOPPED, "server stopped")
        except Exception:
            log.exception("connection failed", peer=connection.peer)
            self._abort_handshake(connection, Counter.CLOSED_ERROR, "internal error")
        else:
            self._in_handshake.discard(connection)
            self._echo_after_handshake(connection)

    def _echo_after_handshake(self, connection: Connection) -> None:
        if not self._admission.admit_address(connection):
            self._abort_handshake(connection, Counter.CLOSED_REJECTED, "too many from its address")
            return
        try:
            self._echo(connection)
        except Exception:
            log.exception("connection failed", peer=connection.peer)
            connection.close()

    def _abort_handshake(self, connection: Connection, reason: Counter, why: str) -> None:
        self._in_handshake.discard(connection)
        self._admission.release(connection, reason, why)
        connection.close()

    def _accept(self) -> tuple[Connection, object] | None:
        try:
            descriptor, sockaddr = cast("Any", self.socket)._accept()  # noqa: SLF001  # without a wrapper
        except BlockingIOError:
            self._on_backlog_empty()
            return None
        except OSError as error:
            self._counters.add(Counter.ACCEPT_ERRORS)
            if error.errno not in _FAILED_IN_BACKLOG:
                self._pause_after_error(error)
            return None
        except Exception as error:
            self._counters.add(Counter.ACCEPT_ERRORS)
            log.exception("accepting failed")
            self._pause_after_error(error)
            return None
        try:
            connection = self._connection_class(
                self.family, socket.SOCK_STREAM, 0, fileno=descriptor
            )
        except Exception:
            log.exception("connection failed", peer=peer_name(sockaddr))
            os.close(descriptor)
            return None
        return connection, sockaddr

    def _pause_after_error(self, error: Exception) -> None:
        self._failures += 1
        self._pause_accepting()
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
            self._pause_was_logged = True

    def _wait_for_release(self) -> None:
        # Releases by this process resume at once; those by others are noticed by retrying.
        self._pause_accepting()
        self._admission.when_released(self._resume)

    def _pause_accepting(self) -> None:
        self.stop_accepting()
        # The attribute of StreamServer for its own pauses: `stop_accepting` stops this timer.
        self._timer = self.loop.timer(PAUSE_SECONDS)
        self._timer.start(self._resume)

    def _resume(self) -> None:
        if self.started:
            self.start_accepting()

    def _on_backlog_empty(self) -> None:
        if self._is_draining_backlog:
            self.close()
        if self._pause_was_logged:
            self._pause_was_logged = False
            log.info("accepting resumed", open=len(self._echo_set))
