"""A blocking connection to an echo service, with deadlines.

Plain `socket` code: in an unpatched process it is a thread's client, in a monkey-patched one a
greenlet's.
"""

from __future__ import annotations

import _socket
import errno
import select
import socket
import struct
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

from echo_client.errors import (
    ClosedError,
    ConnectError,
    ConnectTimeoutError,
    LostError,
    RefusedError,
    ReplyTimeoutError,
    ResetError,
    UnreachableError,
    UnresolvedError,
)
from echo_core.endpoint import Endpoint, NetworkEndpoint, UnixEndpoint
from echo_core.errors import InvalidValueError
from echo_core.units import format_duration

CHUNK = 64 * 1024
# A message up to this size leaves whole before its reply is read. A larger one could fill the
# buffers of both ends, each waiting for the other to read: it is sent and received at once.
_AT_ONCE = 16 * 1024
# What a socket raises when Python's timeout has passed, and when the kernel's has.
_TIMEOUTS = (TimeoutError, BlockingIOError)


class Address(NamedTuple):
    """One address that an endpoint resolved to."""

    family: int
    sockaddr: tuple[Any, ...] | str

    @property
    def endpoint(self) -> Endpoint:
        """The address as people write it."""
        if isinstance(self.sockaddr, str):
            return UnixEndpoint(self.sockaddr)
        return NetworkEndpoint(*self.sockaddr[:2])


def resolve(endpoint: Endpoint) -> list[Address]:
    """Look up the addresses of an endpoint, in the order in which to try them (RFC 6724).

    Raises:
        InvalidValueError: it is a descriptor, which can only be listened on.
        UnresolvedError: the host is not known.
    """
    if isinstance(endpoint, UnixEndpoint):
        return [Address(socket.AF_UNIX, endpoint.path)]
    if not isinstance(endpoint, NetworkEndpoint):
        raise InvalidValueError(f"cannot connect to {endpoint}")
    try:
        found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise UnresolvedError(f"cannot connect to {endpoint}: {error.strerror}") from error
    return [Address(family, tuple(sockaddr)) for family, _, _, _, sockaddr in found]


class EchoConnection:
    """A connected socket whose every operation ends by a deadline.

    Args:
        connected: a connected stream socket; closed by `close`.
        timeout: seconds that a round trip may take, and each wait of a stream.

    Attributes:
        bytes_sent: bytes handed to the kernel.
        bytes_received: bytes that came back.
    """

    def __init__(self, connected: socket.socket, timeout: float) -> None:
        _set_timeout(connected, timeout)
        self.bytes_sent = 0
        self.bytes_received = 0
        self._socket = connected
        self._timeout = timeout

    @classmethod
    def open(
        cls, endpoint: Endpoint, *, timeout: float = 10.0, connect_timeout: float = 5.0
    ) -> Self:
        """Resolve an endpoint and connect to the first of its addresses that answers.

        Raises:
            ConnectError: none does; the error is that of the last one.
        """
        return cls.connect(resolve(endpoint), timeout=timeout, connect_timeout=connect_timeout)

    @classmethod
    def connect(
        cls, addresses: Sequence[Address], *, timeout: float, connect_timeout: float
    ) -> Self:
        """Connect to the first of these addresses that answers; TCP_NODELAY is set.

        Raises:
            ConnectError: none does; the error is that of the last one.
        """
        failure: ConnectError | None = None
        for address in addresses:
            try:
                return cls(_connect(address, connect_timeout), timeout)
            except ConnectError as error:
                failure = error
        raise failure or ConnectError("there is no address to connect to")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    def round_trip(self, message: bytes) -> bytes:
        """Send a message and receive as many bytes, or more if more have come with them.

        Raises:
            ReplyTimeoutError: fewer bytes came within the timeout.
            LostError: the connection broke or ended.
        """
        deadline = time.monotonic() + self._timeout
        if len(message) > _AT_ONCE:
            return self._exchange(message, deadline)
        try:
            self._socket.sendall(message)
            self.bytes_sent += len(message)
            reply = self._socket.recv(CHUNK)
            self.bytes_received += len(reply)
            if len(reply) >= len(message):
                return reply
        except _TIMEOUTS as error:
            raise self._too_late(b"", len(message)) from error
        except OSError as error:
            raise _lost(error) from error
        return self._receive_rest(reply, len(message), deadline)

    def send(self, data: bytes) -> None:
        """Send all of `data`.

        Raises:
            ReplyTimeoutError: the other end took none of it for the timeout.
            LostError: the connection broke.
        """
        try:
            self._socket.sendall(data)
            self.bytes_sent += len(data)
        except _TIMEOUTS as error:
            raise ReplyTimeoutError(
                f"the server stopped reading for {format_duration(self._timeout)}"
            ) from error
        except OSError as error:
            raise _lost(error) from error

    def receive(self) -> bytes:
        """Receive what there is, at most `CHUNK` bytes; nothing at the end of the stream.

        Raises:
            ReplyTimeoutError: nothing came within the timeout.
            LostError: the connection broke.
        """
        try:
            data = self._socket.recv(CHUNK)
            self.bytes_received += len(data)
        except _TIMEOUTS as error:
            raise ReplyTimeoutError(
                f"nothing came back for {format_duration(self._timeout)}"
            ) from error
        except OSError as error:
            raise _lost(error) from error
        return data

    def end_of_sending(self) -> None:
        """Shut down the writing half: the other end sees the end of the stream.

        Raises:
            LostError: the connection is broken.
        """
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise _lost(error) from error

    def abort(self) -> None:
        """Wake up, from any thread, whoever waits in this connection: its stream ends now."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            # Broken or closed already: nobody waits in it.
            if error.errno not in (errno.ENOTCONN, errno.EBADF):
                raise

    def retransmits(self) -> int:
        """Segments that this end's TCP had to send again; 0 where there are none to tell of."""
        if not hasattr(socket, "TCP_INFO") or self._socket.family == socket.AF_UNIX:
            return 0
        information = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        # struct tcp_info of linux/tcp.h: tcpi_total_retrans is the 32-bit word at byte 100.
        return int.from_bytes(information[100:104], sys.byteorder)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _receive_rest(self, begun: bytes, size: int, deadline: float) -> bytes:
        """Receive a reply that came in part, in however many pieces the rest comes."""
        received = bytearray(begun)
        try:
            while len(received) < size:
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    raise TimeoutError
                _set_timeout(self._socket, remaining)
                piece = self._socket.recv(CHUNK)
                if not piece:
                    raise _closed(len(received), size)
                received += piece
                self.bytes_received += len(piece)
        except _TIMEOUTS as error:
            raise self._too_late(bytes(received), size) from error
        except OSError as error:
            raise _lost(error) from error
        finally:
            _set_timeout(self._socket, self._timeout)
        return bytes(received)

    def _exchange(self, message: bytes, deadline: float) -> bytes:
        """Send and receive at the same time, so that neither end waits for the other."""
        received = bytearray()
        view = memoryview(message)
        poll = select.poll()
        try:
            while len(received) < len(message):
                remaining = deadline - time.monotonic()
                poll.register(self._socket, select.POLLIN | (select.POLLOUT if view else 0))
                if remaining <= 0 or not (ready := poll.poll(remaining * 1e3)):
                    raise self._too_late(bytes(received), len(message))
                _, events = ready[0]
                if view and events & select.POLLOUT:
                    sent = self._socket.send(view, socket.MSG_DONTWAIT)
                    self.bytes_sent += sent
                    view = view[sent:]
                if events & ~select.POLLOUT:
                    piece = self._socket.recv(CHUNK)
                    if not piece:
                        raise _closed(len(received), len(message))
                    received += piece
                    self.bytes_received += len(piece)
        except _TIMEOUTS as error:
            raise self._too_late(bytes(received), len(message)) from error
        except OSError as error:
            raise _lost(error) from error
        return bytes(received)

    def _too_late(self, received: bytes, size: int) -> ReplyTimeoutError:
        return ReplyTimeoutError(
            f"{len(received)} of {size} bytes came back within {format_duration(self._timeout)}",
            received,
        )


def _connect(address: Address, timeout: float) -> socket.socket:
    connecting = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        if address.family != socket.AF_UNIX:
            connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connecting.settimeout(timeout)
        connecting.connect(address.sockaddr)
    except OSError as error:
        connecting.close()
        raise _not_connected(error, address.endpoint, timeout) from error
    return connecting


def _set_timeout(connected: socket.socket, seconds: float) -> None:
    """Let each receive and send wait so long at most.

    A timeout of Python's costs a poll(2) before each of them, one of the kernel's nothing
    (socket(7), SO_RCVTIMEO). Only where the socket is a native one: gevent's wraps one that never
    blocks, and waits itself.
    """
    if not isinstance(connected, _socket.socket):
        connected.settimeout(seconds)
        return
    connected.settimeout(None)
    microseconds = max(1, int(seconds * 1e6))
    interval = struct.pack("ll", microseconds // 1_000_000, microseconds % 1_000_000)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, interval)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, interval)


def _not_connected(error: OSError, endpoint: Endpoint, timeout: float) -> ConnectError:
    if isinstance(error, TimeoutError):
        return ConnectTimeoutError(
            f"cannot connect to {endpoint}: no answer within {format_duration(timeout)}"
        )
    kind = {
        errno.ECONNREFUSED: RefusedError,
        errno.EHOSTUNREACH: UnreachableError,
        errno.ENETUNREACH: UnreachableError,
    }.get(error.errno or 0, ConnectError)
    return kind(f"cannot connect to {endpoint}: {error.strerror}")


def _lost(error: OSError) -> LostError:
    if isinstance(error, (ConnectionResetError, BrokenPipeError)):
        return ResetError("the server reset the connection")
    return LostError(f"the connection broke: {error.strerror}")


def _closed(received: int, size: int) -> ClosedError:
    return ClosedError(f"the server closed the connection after {received} of {size} bytes")
