"""Connections with timeouts to an echo service, over TCP, TLS, unix sockets or UDP.

They use blocking sockets: an operation blocks the calling thread, or in a monkey-patched process
only the calling greenlet.
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
from echo_client.proxy_header import ProxyHeader
from echo_client.socket_options import DEFAULT_OPTIONS, SocketOptions
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
# A message up to this size in bytes is sent whole before its reply is read. A larger one is sent
# and received concurrently: it could fill the buffers of both ends, each of which would then wait
# for the other to read.
_AT_ONCE = 16 * 1024
_SMALL = 1024


class EchoConnection:
    """A connection on which every operation has a timeout.

    One thread may send while another receives, also over TLS.

    Args:
        connected: a connected stream socket; `close` closes it.
        timeout: the timeout in seconds of a round trip, and of each single send or receive.
        connect_ns: the nanoseconds that the path took to establish the connection.
        handshake_ns: the nanoseconds that the TLS handshake took; 0 without TLS.
        cipher: the version and the cipher of TLS; "" without TLS.

    Attributes:
        bytes_sent: the number of bytes passed to the kernel, before encryption and without a PROXY
            header.
        bytes_received: the number of bytes received, after decryption.
        connect_ns: the nanoseconds that the path took to establish the connection.
        handshake_ns: the nanoseconds that the TLS handshake took; 0 without TLS.
        cipher: the version and the cipher of TLS: `TLSv1.3 TLS_AES_256_GCM_SHA384`; "" without TLS.
    """

    def __init__(
        self,
        connected: socket.socket | TlsSocket,
        timeout: float,
        *,
        connect_ns: int = 0,
        handshake_ns: int = 0,
        cipher: str = "",
    ) -> None:
        set_timeout(connected, timeout)
        self.bytes_sent = 0
        self.bytes_received = 0
        self.connect_ns = connect_ns
        self.handshake_ns = handshake_ns
        self.cipher = cipher
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
        options: SocketOptions = DEFAULT_OPTIONS,
        header: ProxyHeader | None = None,
    ) -> EchoConnection:
        """Resolve an endpoint and connect to the first of its addresses that answers.

        Args:
            endpoint: a tcp, tls, udp or unix endpoint.
            timeout: the timeout in seconds of a round trip, and of each single send or receive.
            connect_timeout: the timeout in seconds of each address, TLS handshake included.
            tls: the options of a tls endpoint; None trusts the system's certificate authorities.
            source: the local IP address to connect from; None lets the system choose.
            ip_version: 4 or 6 for addresses of this version only; None for both.
            options: the options of the socket.
            header: the PROXY header to begin a stream with; None for none.

        Raises:
            ConnectError: the name is unknown, or no address answers; then it is the error of the
                last one.
            TlsFileError: a file of the TLS options cannot be used.
        """
        tls = tls or TlsOptions()
        addresses: Sequence[Address] = resolve(endpoint, ip_version)
        if endpoint.scheme == "udp":
            addresses = best_first(addresses, connect_timeout, source)
        return EchoConnection.connect(
            addresses,
            timeout=timeout,
            connect_timeout=connect_timeout,
            tls=tls.context() if endpoint.scheme == "tls" else None,
            server_name=tls.server_name,
            source=source,
            options=options,
            header=header,
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
        options: SocketOptions = DEFAULT_OPTIONS,
        header: ProxyHeader | None = None,
    ) -> EchoConnection:
        """Connect to the first of several addresses that answers.

        Args:
            addresses: the addresses, in order of preference.
            timeout: the timeout in seconds of a round trip, and of each single send or receive.
            connect_timeout: the timeout in seconds of each address, TLS handshake included.
            tls: the TLS context for tls addresses; None creates one that trusts the system's
                certificate authorities, which takes milliseconds.
            server_name: the name that the certificate must match; None for the address's host.
            source: the local IP address to connect from; None lets the system choose.
            options: the options of the socket.
            header: the PROXY header to begin a stream with; None for none.

        Raises:
            ConnectError: no address answers; the error of the last one.
            HandshakeError: an address answers, but the TLS handshake fails; no other is tried.
        """
        found = connect_first(addresses, connect_timeout, source, options)
        connect_ns = _connect_ns(found.socket, found.address, found.connect_ns)
        if found.address.transport == "udp":
            return DatagramConnection(found.socket, timeout, connect_ns=connect_ns)
        if header is not None:
            connecting.send_header(found.socket, found.address, header)
        if found.address.transport != "tls":
            return EchoConnection(found.socket, timeout, connect_ns=connect_ns)
        remaining = connect_timeout - found.connect_ns / 1e9
        secured, handshake_ns = connecting.secure(
            found.socket, found.address, remaining, tls, server_name
        )
        return EchoConnection(
            secured,
            timeout,
            connect_ns=connect_ns,
            handshake_ns=handshake_ns,
            cipher=secured.cipher,
        )

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
        """Send a message and receive at least as many bytes.

        Returns:
            The reply; longer than the message if surplus bytes arrived together with it.

        Raises:
            ReplyTimeoutError: fewer bytes arrived within the timeout.
            LostError: the connection broke or was closed.
        """
        deadline = time.monotonic() + self._timeout
        if len(message) > _AT_ONCE:
            return self._exchange(message, deadline)
        try:
            size = len(message)
            self._socket.sendall(message)
            self.bytes_sent += size
            # recv allocates the whole buffer; for a small reply that would be most of its cost.
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
            ReplyTimeoutError: no byte could be sent for the length of the timeout.
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
        """Receive up to `CHUNK` bytes; an empty result is the end of the stream.

        Raises:
            ReplyTimeoutError: nothing arrived within the timeout.
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
        """Wait on an idle connection, and return early if data or the end of the stream arrives.

        Args:
            seconds: the time to wait in seconds.

        Returns:
            The data received, empty at the end of the stream; None if neither arrived.

        Raises:
            LostError: the connection broke.
        """
        deadline = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        try:
            while True:
                wait(poll, deadline)
                # TLS decrypts only complete records: a readable socket may yield no data yet.
                with suppress(BlockingIOError):
                    data = self._socket.recv(CHUNK, socket.MSG_DONTWAIT)
                    self.bytes_received += len(data)
                    return data
        except OSError as error:
            if not is_late(error):
                raise self._broken(error) from error
            return None

    def end_of_sending(self) -> None:
        """Shut down the sending side: the peer receives the end of the stream.

        Raises:
            LostError: the connection is broken.
        """
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise lost(error) from error

    def fileno(self) -> int:
        """Return the descriptor of the socket, for poll(2); -1 once it is closed."""
        return self._socket.fileno()

    def abort(self) -> None:
        """End the stream now and wake up a thread that waits on it; callable from any thread."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            # The socket is broken or closed already, so no thread waits on it.
            if error.errno not in (errno.ENOTCONN, errno.EBADF):
                raise

    def tcp_info(self) -> TcpInfo | None:
        """Return the kernel's information about the connection; None without TCP or Linux."""
        return None if self.family == socket.AF_UNIX else read_tcp_info(self._socket)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _receive_rest(self, begun: bytes, size: int, deadline: float) -> bytes:
        """Receive the rest of a reply, of which a part has already arrived, and return it whole."""
        received = bytearray(begun)
        try:
            while len(received) < size:
                set_timeout(self._socket, seconds_until(deadline))
                piece = self._socket.recv(CHUNK)
                if not piece:
                    raise _closed(bytes(received), size)
                received += piece
                self.bytes_received += len(piece)
        except OSError as error:
            raise self._failed(error, bytes(received), size) from error
        finally:
            set_timeout(self._socket, self._timeout)
        return bytes(received)

    def _exchange(self, message: bytes, deadline: float) -> bytes:
        """Send and receive concurrently, so that the two ends cannot deadlock."""
        received = bytearray()
        view = memoryview(message)
        poll = select.poll()
        try:
            while len(received) < len(message):
                poll.register(self._socket, select.POLLIN | (select.POLLOUT if view else 0))
                events = wait(poll, deadline)
                # Even on a ready socket TLS may have to wait for the rest of a record.
                if view and events & select.POLLOUT:
                    with suppress(BlockingIOError):
                        sent = self._socket.send(view, socket.MSG_DONTWAIT)
                        self.bytes_sent += sent
                        view = view[sent:]
                if events & ~select.POLLOUT:
                    with suppress(BlockingIOError):
                        piece = self._socket.recv(CHUNK, socket.MSG_DONTWAIT)
                        if not piece:
                            raise _closed(bytes(received), len(message))
                        received += piece
                        self.bytes_received += len(piece)
        except OSError as error:
            raise self._failed(error, bytes(received), len(message)) from error
        return bytes(received)

    def _broken(self, error: OSError) -> ClientError:
        """Return the error of a connection that cannot be used, which is not a timeout."""
        return lost(error)

    def _failed(self, error: OSError, received: bytes, size: int) -> ClientError:
        """Return the error of a round trip, given the part of the reply that has arrived."""
        if not is_late(error):
            return lost(error, received)
        return ReplyTimeoutError(
            f"{len(received)} of {size} bytes came back within {format_duration(self._timeout)}",
            received,
        )


def _connect_ns(connected: socket.socket, address: Address, elapsed_ns: int) -> int:
    """Return the nanoseconds that the path took to connect, from the kernel if it knows them."""
    information = read_tcp_info(connected) if address.transport in {"tcp", "tls"} else None
    return elapsed_ns if information is None else information.connecting_ns(elapsed_ns)


class DatagramConnection(EchoConnection):
    """A connected UDP socket: each message is one datagram, and so is each reply.

    Connecting exchanges no packets, and the loss of a datagram is not reported.
    """

    _aborted = False

    def round_trip(self, message: bytes) -> bytes:
        """Send a datagram and receive the next one, which may be the reply to an earlier one.

        Raises:
            InvalidValueError: the message is larger than a datagram can be.
            ReplyTimeoutError: no datagram arrived within the timeout.
            RefusedError: the port has no listener, as ICMP answered this or an earlier datagram.
            LostError: sending failed, or ICMP reported that the datagram cannot be delivered.
        """
        self.send(message)
        return self.receive()

    def send(self, data: bytes) -> None:
        """Send a datagram; raise the same errors as `round_trip`."""
        largest = LARGEST_DATAGRAM[6 if self.family == socket.AF_INET6 else 4]
        if len(data) > largest:
            raise InvalidValueError(
                f"a message of {len(data)} bytes is too large: a datagram can hold at most "
                f"{largest}"
            )
        try:
            # Not sendall: gevent's version does not send an empty datagram.
            self.bytes_sent += self._socket.send(data)
        except OSError as error:
            raise self._undelivered(error) from error

    def receive(self) -> bytes:
        """Receive a datagram, which may be empty; raise the same errors as `round_trip`."""
        try:
            data = self._socket.recv(CHUNK)
        except OSError as error:
            raise self._undelivered(error) from error
        if self._aborted and not data:
            raise ClosedError("the connection was aborted")
        self.bytes_received += len(data)
        return data

    def end_of_sending(self) -> None:
        """Raise an error: datagrams have no end of stream.

        Raises:
            InvalidValueError: always.
        """
        raise InvalidValueError("UDP has no end of stream to send")

    def abort(self) -> None:
        """Make a waiting receive raise ClosedError; callable from any thread."""
        self._aborted = True
        super().abort()

    def tcp_info(self) -> TcpInfo | None:
        """Return None: this is not TCP."""
        return None

    def _broken(self, error: OSError) -> ClientError:
        return self._undelivered(error)

    def _undelivered(self, error: OSError) -> ClientError:
        if is_late(error):
            return ReplyTimeoutError(f"no datagram arrived within {format_duration(self._timeout)}")
        failure = connected_failure(error.errno)
        if failure is RefusedError:
            return RefusedError("nothing listens there: the datagram was refused")
        return failure(f"the datagram cannot be delivered: {error.strerror}")


def _closed(received: bytes, size: int) -> ClosedError:
    message = f"the server closed the connection after {len(received)} of {size} bytes"
    return ClosedError(message, received)
