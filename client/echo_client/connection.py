"""A connection to an echo service, with deadlines: TCP, TLS, unix sockets and UDP.

Plain `socket` code: in an unpatched process it is a thread's client, in a monkey-patched one a
greenlet's.
"""

from __future__ import annotations

import errno
import select
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

from echo_client import connecting
from echo_client.addresses import Address, resolve
from echo_client.deadlines import is_late, seconds_until, set_timeout, wait
from echo_client.errors import (
    ClientError,
    ClosedError,
    RefusedError,
    ReplyTimeoutError,
    connected_failure,
    lost,
)
from echo_client.happy_eyeballs import best_first, connect_first
from echo_client.tcp_info import TcpInfo, read_tcp_info
from echo_client.tls import TlsOptions
from echo_core.endpoint import Endpoint
from echo_core.errors import InvalidValueError
from echo_core.limits import LARGEST_DATAGRAM
from echo_core.units import format_duration

if TYPE_CHECKING:
    import ssl

    from echo_client.tls_socket import TlsSocket

__all__ = ["CHUNK", "Address", "DatagramConnection", "EchoConnection", "TcpInfo", "resolve"]

CHUNK = 64 * 1024
# A message up to this size leaves whole before its reply is read. A larger one could fill the
# buffers of both ends, each waiting for the other to read: it is sent and received at once.
_AT_ONCE = 16 * 1024
_SMALL = 1024


class EchoConnection:
    """A connected socket whose every operation ends by a deadline.

    One thread may send while another receives, over TLS too.

    Args:
        connected: a connected stream socket; closed by `close`.
        timeout: seconds that a round trip may take, and each wait of a stream.
        connect_ns: what connecting took.
        handshake_ns: what the TLS handshake took.

    Attributes:
        bytes_sent: bytes handed to the kernel, before encryption.
        bytes_received: bytes that came back, decrypted.
        connect_ns: nanoseconds that the path took to establish the connection.
        handshake_ns: nanoseconds of the TLS handshake after it; 0 where there is none.
    """

    def __init__(
        self,
        connected: socket.socket | TlsSocket,
        timeout: float,
        *,
        connect_ns: int = 0,
        handshake_ns: int = 0,
    ) -> None:
        set_timeout(connected, timeout)
        self.bytes_sent = 0
        self.bytes_received = 0
        self.connect_ns = connect_ns
        self.handshake_ns = handshake_ns
        self._socket = connected
        self._timeout = timeout

    @staticmethod
    def open(
        endpoint: Endpoint,
        *,
        timeout: float = 10.0,
        connect_timeout: float = 5.0,
        tls: TlsOptions | None = None,
        source: str | None = None,
        ip_version: int | None = None,
    ) -> EchoConnection:
        """Resolve an endpoint and connect to the first of its addresses that answers.

        Args:
            endpoint: tcp, tls, udp or unix.
            timeout: seconds that a round trip may take, and each wait of a stream.
            connect_timeout: seconds that each address gets for connecting, TLS handshake included.
            tls: whom to trust where the endpoint is tls; None for the system's authorities.
            source: IP address of this machine to connect from.
            ip_version: 4 or 6, to use no other addresses.

        Raises:
            ConnectError: none does; the error is that of the last one.
            TlsFileError: a file for TLS is not what it should be.
        """
        options = tls or TlsOptions()
        addresses: Sequence[Address] = resolve(endpoint, ip_version)
        if endpoint.scheme == "udp":
            addresses = best_first(addresses, connect_timeout, source)
        return EchoConnection.connect(
            addresses,
            timeout=timeout,
            connect_timeout=connect_timeout,
            tls=options.context() if endpoint.scheme == "tls" else None,
            server_name=options.server_name,
            source=source,
        )

    @staticmethod
    def connect(
        addresses: Sequence[Address],
        *,
        timeout: float,
        connect_timeout: float,
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
        source: str | None = None,
    ) -> EchoConnection:
        """Connect to the first of these addresses that answers; TCP_NODELAY is set.

        Args:
            addresses: where to.
            timeout: seconds that a round trip may take, and each wait of a stream.
            connect_timeout: seconds that each address gets for connecting, TLS handshake included.
            tls: how to speak TLS to tls addresses; None makes a context that trusts the system's
                authorities, which takes milliseconds.
            server_name: what a certificate must be for; None for the address's own host.
            source: IP address of this machine to connect from, a port left to the system.

        Raises:
            ConnectError: none does; the error is that of the last one.
            HandshakeError: one does, but not with TLS; no other is tried.
        """
        found = connect_first(addresses, connect_timeout, source)
        connect_ns = _connect_ns(found.socket, found.address, found.connect_ns)
        if found.address.transport == "udp":
            return DatagramConnection(found.socket, timeout, connect_ns=connect_ns)
        if found.address.transport != "tls":
            return EchoConnection(found.socket, timeout, connect_ns=connect_ns)
        remaining = connect_timeout - found.connect_ns / 1e9
        secured, handshake_ns = connecting.secure(
            found.socket, found.address, remaining, tls, server_name
        )
        return EchoConnection(secured, timeout, connect_ns=connect_ns, handshake_ns=handshake_ns)

    @property
    def family(self) -> int:
        """`AF_INET`, `AF_INET6` or `AF_UNIX`."""
        return self._socket.family

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
            size = len(message)
            self._socket.sendall(message)
            self.bytes_sent += size
            # The buffer is allocated first, and a large one costs more than a small reply.
            reply = self._socket.recv(_SMALL if size < _SMALL else CHUNK)
            received = len(reply)
            self.bytes_received += received
            if received >= size:
                return reply
        except OSError as error:
            raise self._failed(error, b"", len(message)) from error
        return self._receive_rest(reply, size, deadline)

    def send(self, data: bytes) -> None:
        """Send all of `data`.

        Raises:
            ReplyTimeoutError: the other end took none of it for the timeout.
            LostError: the connection broke.
        """
        try:
            self._socket.sendall(data)
            self.bytes_sent += len(data)
        except OSError as error:
            if not is_late(error):
                raise lost(error) from error
            raise ReplyTimeoutError(
                f"the server stopped reading for {format_duration(self._timeout)}"
            ) from error

    def receive(self) -> bytes:
        """Receive what there is, at most `CHUNK` bytes; nothing at the end of the stream.

        Raises:
            ReplyTimeoutError: nothing came within the timeout.
            LostError: the connection broke.
        """
        try:
            data = self._socket.recv(CHUNK)
            self.bytes_received += len(data)
        except OSError as error:
            if not is_late(error):
                raise lost(error) from error
            raise ReplyTimeoutError(
                f"no data arrived for {format_duration(self._timeout)}"
            ) from error
        return data

    def idle(self, seconds: float) -> bytes | None:
        """Wait with nothing under way; gives what comes all the same, or the end of the stream.

        Args:
            seconds: how long.

        Returns:
            What came, nothing at the end of the stream; None if it was quiet.

        Raises:
            LostError: the connection broke.
        """
        deadline = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        try:
            while True:
                wait(poll, deadline)
                # What is ready may hold nothing for the reader: TLS moves whole records.
                with suppress(BlockingIOError):
                    data = self._socket.recv(CHUNK, socket.MSG_DONTWAIT)
                    self.bytes_received += len(data)
                    return data
        except OSError as error:
            if not is_late(error):
                raise lost(error) from error
            return None

    def end_of_sending(self) -> None:
        """Shut down the writing half: the other end sees the end of the stream.

        Raises:
            LostError: the connection is broken.
        """
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise lost(error) from error

    def fileno(self) -> int:
        """The descriptor of the socket, for a poll; -1 once it is closed."""
        return self._socket.fileno()

    def abort(self) -> None:
        """Wake up, from any thread, whoever waits in this connection: its stream ends now."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            # Broken or closed already: nobody waits in it.
            if error.errno not in (errno.ENOTCONN, errno.EBADF):
                raise

    def tcp_info(self) -> TcpInfo | None:
        """Ask the kernel; None where there is no TCP, or no Linux."""
        return None if self.family == socket.AF_UNIX else read_tcp_info(self._socket)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _receive_rest(self, begun: bytes, size: int, deadline: float) -> bytes:
        """Receive a reply that came in part, in however many pieces the rest comes."""
        received = bytearray(begun)
        try:
            while len(received) < size:
                set_timeout(self._socket, seconds_until(deadline))
                piece = self._socket.recv(CHUNK)
                if not piece:
                    raise _closed(len(received), size)
                received += piece
                self.bytes_received += len(piece)
        except OSError as error:
            raise self._failed(error, bytes(received), size) from error
        finally:
            set_timeout(self._socket, self._timeout)
        return bytes(received)

    def _exchange(self, message: bytes, deadline: float) -> bytes:
        """Send and receive at the same time, so that neither end waits for the other."""
        received = bytearray()
        view = memoryview(message)
        poll = select.poll()
        try:
            while len(received) < len(message):
                poll.register(self._socket, select.POLLIN | (select.POLLOUT if view else 0))
                events = wait(poll, deadline)
                # What is ready may still not do: TLS moves whole records.
                if view and events & select.POLLOUT:
                    with suppress(BlockingIOError):
                        sent = self._socket.send(view, socket.MSG_DONTWAIT)
                        self.bytes_sent += sent
                        view = view[sent:]
                if events & ~select.POLLOUT:
                    with suppress(BlockingIOError):
                        piece = self._socket.recv(CHUNK, socket.MSG_DONTWAIT)
                        if not piece:
                            raise _closed(len(received), len(message))
                        received += piece
                        self.bytes_received += len(piece)
        except OSError as error:
            raise self._failed(error, bytes(received), len(message)) from error
        return bytes(received)

    def _failed(self, error: OSError, received: bytes, size: int) -> ClientError:
        """Return the error of a round trip of whose reply this much had arrived."""
        if not is_late(error):
            return lost(error)
        return ReplyTimeoutError(
            f"{len(received)} of {size} bytes came back within {format_duration(self._timeout)}",
            received,
        )


def _connect_ns(connected: socket.socket, address: Address, elapsed_ns: int) -> int:
    information = read_tcp_info(connected) if address.transport in {"tcp", "tls"} else None
    return elapsed_ns if information is None else information.connecting_ns(elapsed_ns)


class DatagramConnection(EchoConnection):
    """A UDP socket that knows its other end: each message is one datagram, and so is each reply.

    Nothing is established by connecting it, and nothing says that a datagram was lost.
    """

    _aborted = False

    def round_trip(self, message: bytes) -> bytes:
        """Send a datagram and receive the next one that comes, which may answer an earlier one.

        Raises:
            InvalidValueError: the message is more than a datagram holds.
            ReplyTimeoutError: none came within the timeout.
            RefusedError: nobody listens there, as the answer to this or an earlier one said.
            LostError: the system cannot send, or was told that it does not arrive.
        """
        self.send(message)
        return self.receive()

    def send(self, data: bytes) -> None:
        """Send a datagram; raises what `round_trip` does."""
        largest = LARGEST_DATAGRAM[6 if self.family == socket.AF_INET6 else 4]
        if len(data) > largest:
            raise InvalidValueError(
                f"a message of {len(data)} bytes is too large: a datagram can hold at most "
                f"{largest}"
            )
        try:
            # Not sendall: gevent's sends no empty datagram.
            self.bytes_sent += self._socket.send(data)
        except OSError as error:
            raise self._undelivered(error) from error

    def receive(self) -> bytes:
        """Receive a datagram, which may be empty; raises what `round_trip` does."""
        try:
            data = self._socket.recv(CHUNK)
        except OSError as error:
            raise self._undelivered(error) from error
        if self._aborted and not data:
            raise ClosedError("the connection was aborted")
        self.bytes_received += len(data)
        return data

    def end_of_sending(self) -> None:
        """Refuse: datagrams have no end.

        Raises:
            InvalidValueError: always.
        """
        raise InvalidValueError("UDP has no end of stream to send")

    def abort(self) -> None:
        """Wake up, from any thread, whoever waits in this connection: ClosedError."""
        self._aborted = True
        super().abort()

    def tcp_info(self) -> TcpInfo | None:
        """None: there is no TCP."""
        return None

    def _undelivered(self, error: OSError) -> ClientError:
        if is_late(error):
            return ReplyTimeoutError(f"no datagram arrived within {format_duration(self._timeout)}")
        failure = connected_failure(error.errno)
        if failure is RefusedError:
            return RefusedError("nothing listens there: the datagram was refused")
        return failure(f"the datagram cannot be delivered: {error.strerror}")


def _closed(received: int, size: int) -> ClosedError:
    said = f"the server closed the connection after {received} of {size} bytes"
    return ClosedError(said, received)
