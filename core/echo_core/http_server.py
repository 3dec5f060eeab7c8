"""A small HTTP server for monitoring, with a bounded number and duration of connections.

One thread serves all connections. Each connection carries one request and one response, as in
HTTP/1.0 (RFC 1945). The standard library parses the requests; its own server would give each
connection a thread for as long as the client keeps it open.
"""

from __future__ import annotations

import errno
import math
import os
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from typing import NamedTuple

from structlog.typing import FilteringBoundLogger

# The default maximum number of open connections.
MAX_CONNECTIONS = 64
# The default time for a request and its response.
REQUEST_SECONDS = 10.0
# Far more than a request without a body needs.
_MAX_HEAD_BYTES = 16 * 1024
# The maximum number of receive calls that discard data after the request.
_MAX_DISCARDS = 16
# Connections that are accepted before the open ones are served again.
_ACCEPT_BATCH = 16
_PAUSE_SECONDS = 0.1
_WARNING_PERIOD_SECONDS = 10.0
_NO_DESCRIPTOR = frozenset({errno.EMFILE, errno.ENFILE})
_METHODS = ("GET", "HEAD")
# Added to the nice value of the server's thread (sched(7)): continuous scraping would otherwise
# delay echoes on the same core by milliseconds.
_NICENESS = 15


class Response(NamedTuple):
    """A response to an HTTP request.

    Attributes:
        status: the HTTP status.
        content: the body.
        content_type: the media type of the body.
    """

    status: HTTPStatus
    content: bytes
    content_type: str = "text/plain; charset=utf-8"

    @classmethod
    def of_text(cls, status: HTTPStatus, text: str) -> Response:
        """Return a response whose body is one line of text."""
        return cls(status, f"{text}\n".encode())


# Returns the response to a request, given its path (without the query) and its header fields.
Pages = Callable[[str, Message], Response]


class _Connection:
    """A connection and the state of its request.

    Attributes:
        socket: the non-blocking socket.
        deadline: when the connection is closed at the latest, in seconds of the monotonic clock.
        head: the part of the request received so far.
        unsent: the part of the response not yet sent; None while the request is incomplete.
        watched: the selector event it waits for; 0 before it is registered.
    """

    __slots__ = ("deadline", "head", "socket", "unsent", "watched")

    def __init__(self, accepted: socket.socket, deadline: float) -> None:
        self.socket = accepted
        self.deadline = deadline
        self.head = bytearray()
        self.unsent: memoryview | None = None
        self.watched = 0


class HttpServer:
    """An HTTP server for GET and HEAD that runs in a low-priority thread of its own.

    A connection is closed if its whole response has not been sent within `seconds`. A new client is
    always admitted: when `max_connections` are open, or the process has no descriptor left, the
    oldest connection without a complete request is closed or, if all requests are complete, the
    oldest connection. One spare descriptor is reserved for the case that no connection is open.

    If a page raises an exception, it is logged, and the response has status 500. A client that
    disconnects early is logged at debug level.

    Args:
        listener: a listening socket; it is made non-blocking, and `close` closes it.
        pages: called in the server's thread with the path and the header fields of each request.
        logger: the logger for errors and requests.
        max_connections: the maximum number of open connections.
        seconds: the time from accepting a connection until its response must have been sent.
    """

    def __init__(
        self,
        listener: socket.socket,
        pages: Pages,
        logger: FilteringBoundLogger,
        *,
        max_connections: int = MAX_CONNECTIONS,
        seconds: float = REQUEST_SECONDS,
    ) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._pages = pages
        self._logger = logger
        self._max_connections = max_connections
        self._seconds = seconds
        # In the order of acceptance, which is also that of the deadlines.
        self._connections: dict[_Connection, None] = {}
        self._spare: int | None = os.dup(listener.fileno())
        self._accept_at: float | None = None
        self._warned_at = -math.inf
        self._is_closing = False
        self._is_accepting = True
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(self._wake_reader, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, name="http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop accepting, and wait until all open connections are served or time out."""
        self._is_closing = True
        self._wake_writer.send(b"x")
        self._thread.join()
        for closing in (self._wake_reader, self._wake_writer):
            closing.close()
        self._selector.close()
        if self._spare is not None:
            os.close(self._spare)

    def _serve(self) -> None:
        if sys.platform == "linux":
            # On other systems this would change the priority of the whole process.
            own = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, own, os.getpriority(os.PRIO_PROCESS, own) + _NICENESS)
        while not self._is_closing or self._connections:
            try:
                if self._is_closing and self._is_accepting:
                    self._stop_accepting()
                self._serve_once()
            except Exception:
                self._logger.exception("http server failed")
                time.sleep(_PAUSE_SECONDS)
        self._listener.close()

    def _serve_once(self) -> None:
        for key, _ in self._selector.select(self._timeout()):
            if key.fileobj is self._listener:
                self._accept()
            elif key.fileobj is self._wake_reader:
                self._wake_reader.recv(1)
            elif key.data in self._connections:
                # A connection that is not in it was closed in this batch to admit a new one.
                self._advance(key.data)
        now = time.monotonic()
        if self._accept_at is not None and self._accept_at <= now:
            self._start_accepting()
        while self._connections and (first := next(iter(self._connections))).deadline <= now:
            self._logger.debug("request timed out")
            self._end(first)

    def _timeout(self) -> float | None:
        due_times = [one.deadline for one in self._connections][:1]
        if self._accept_at is not None:
            due_times.append(self._accept_at)
        return max(0.0, min(due_times) - time.monotonic()) if due_times else None

    def _accept(self) -> None:
        for _ in range(_ACCEPT_BATCH):
            try:
                accepted, _ = self._listener.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                if error.errno in _NO_DESCRIPTOR and self._free_descriptor():
                    continue
                self._pause(error)
                return
            if len(self._connections) >= self._max_connections:
                self._free_descriptor()
            accepted.setblocking(False)
            connection = _Connection(accepted, time.monotonic() + self._seconds)
            self._connections[connection] = None
            self._advance(connection)

    def _free_descriptor(self) -> bool:
        """Close a connection, or else the spare descriptor; return False if there is neither.

        The connection is the oldest without a complete request, or else the oldest of all, even if
        its response is then truncated.
        """
        if self._connections:
            self._logger.debug("http client dropped for a newer one")
            waiting = (one for one in self._connections if one.unsent is None)
            self._end(next(waiting, next(iter(self._connections))))
            return True
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None
            return True
        return False

    def _pause(self, error: OSError) -> None:
        now = time.monotonic()
        if now - self._warned_at >= _WARNING_PERIOD_SECONDS:
            self._warned_at = now
            self._logger.warning(
                "http server paused", reason=error.strerror, retry_seconds=_PAUSE_SECONDS
            )
        self._stop_accepting()
        self._accept_at = now + _PAUSE_SECONDS

    def _stop_accepting(self) -> None:
        self._selector.unregister(self._listener)
        self._is_accepting = False

    def _start_accepting(self) -> None:
        self._accept_at = None
        if not self._is_closing:
            self._selector.register(self._listener, selectors.EVENT_READ)
            self._is_accepting = True

    def _advance(self, connection: _Connection) -> None:
        """Receive or send without blocking; a failure ends only this connection."""
        try:
            try:
                if connection.unsent is None:
                    self._receive(connection)
                if connection.unsent is not None:
                    self._send(connection)
            except BlockingIOError:
                pass
            # Most requests are complete by now, and are served without being registered.
            if connection in self._connections:
                self._watch(connection)
        except OSError as error:
            self._logger.debug("http client left", reason=error.strerror)
            self._end(connection)
        except Exception:
            self._logger.exception("http request failed")
            self._end(connection)

    def _receive(self, connection: _Connection) -> None:
        received = connection.socket.recv(_MAX_HEAD_BYTES)
        if not received:
            self._end(connection)
            return
        connection.head += received
        if b"\r\n\r\n" in connection.head or b"\n\n" in connection.head:
            connection.unsent = memoryview(
                _Request(bytes(connection.head), self._logger).respond(self._pages)
            )
        elif len(connection.head) >= _MAX_HEAD_BYTES:
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            request = _Request(bytes(connection.head), self._logger)
            connection.unsent = memoryview(request.refuse(status))

    def _send(self, connection: _Connection) -> None:
        assert connection.unsent is not None
        sent = connection.socket.send(connection.unsent)
        connection.unsent = connection.unsent[sent:]
        if not connection.unsent:
            connection.socket.shutdown(socket.SHUT_WR)
            # Unread data, such as a body, would make close() send a reset (RFC 9112, section 9.6).
            with suppress(BlockingIOError):
                for _ in range(_MAX_DISCARDS):
                    if not connection.socket.recv(_MAX_HEAD_BYTES):
                        break
            self._end(connection)

    def _watch(self, connection: _Connection) -> None:
        event = selectors.EVENT_READ if connection.unsent is None else selectors.EVENT_WRITE
        if not connection.watched:
            self._selector.register(connection.socket, event, connection)
        elif connection.watched != event:
            self._selector.modify(connection.socket, event, connection)
        connection.watched = event

    def _end(self, connection: _Connection) -> None:
        del self._connections[connection]
        if connection.watched:
            self._selector.unregister(connection.socket)
        connection.socket.close()
        if self._spare is None:
            try:
                self._spare = os.dup(self._listener.fileno())
            except OSError as error:
                self._logger.debug("no descriptor to spare", reason=error.strerror)


class _Request(BaseHTTPRequestHandler):
    """A request parsed by the standard library, and its response, both in memory."""

    server_version = "echoswarm"
    sys_version = ""

    def __init__(self, head: bytes, logger: FilteringBoundLogger) -> None:
        self._logger = logger
        self.rfile = BytesIO(head)
        self.wfile = BytesIO()
        self.raw_requestline = self.rfile.readline()

    def respond(self, pages: Pages) -> bytes:
        """Return the response to this request, also if the request is malformed."""
        if self.parse_request():
            if self.command not in _METHODS:
                text = f"{' and '.join(_METHODS)} only"
                self._write(Response.of_text(HTTPStatus.METHOD_NOT_ALLOWED, text))
            else:
                self._write(self._page(pages))
        return self._written()

    def refuse(self, status: HTTPStatus) -> bytes:
        """Return an error response without parsing the request."""
        self.requestline = ""
        self.send_error(status)
        return self._written()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Write an error response, a line of text; the base class writes HTML, or HTTP/0.9."""
        status = HTTPStatus(code)
        self.request_version, self.command = self.protocol_version, ""
        self._write(Response.of_text(status, message or explain or status.phrase))

    def _page(self, pages: Pages) -> Response:
        try:
            return pages(self.path.partition("?")[0], self.headers)
        except Exception:
            self._logger.exception("page failed", path=self.path)
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            return Response.of_text(status, status.phrase)

    def _write(self, response: Response) -> None:
        self.send_response(response.status)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.content)))
        if response.status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", ", ".join(_METHODS))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.content)

    def _written(self) -> bytes:
        assert isinstance(self.wfile, BytesIO)
        return self.wfile.getvalue()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base's name
        """Log a request or an error in it."""
        self._logger.debug("http request", request=format % args)
