"""The handshake that precedes the echo on some listeners: a PROXY header, TLS, or both.

Unlike the echo, a handshake runs in a greenlet per connection: it consists of several steps that
wait for the peer, with a common timeout.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable

import gevent
from gevent.socket import wait_read, wait_write

from echo_core.proxy_protocol import InvalidHeaderError, SockAddr, read_header
from echo_server.errors import ServerError
from echo_server.metrics.counters import Counter
from echo_server.streams.connection import Connection
from echo_server.streams.tls import TlsConnection


class HandshakeError(ServerError):
    """The handshake of a connection failed: its PROXY header or its TLS handshake.

    Attributes:
        counter: the counter of connections closed for this reason.
    """

    def __init__(self, counter: Counter, message: str) -> None:
        super().__init__(message)
        self.counter = counter


class Handshake:
    """The handshake of the connections of a listener.

    Args:
        timeout: seconds that a connection has for the whole handshake.
        proxy_protocol: True if connections begin with a PROXY header.
        context: the TLS context; None for connections without TLS.
    """

    def __init__(
        self, timeout: float, *, proxy_protocol: bool, context: ssl.SSLContext | None
    ) -> None:
        self._timeout = timeout
        self._proxy_protocol = proxy_protocol
        self._context = context

    @property
    def speaks_tls(self) -> bool:
        """True if connections must be `TlsConnection`s."""
        return self._context is not None

    def perform(self, connection: Connection) -> None:
        """Perform the handshake of a connection; a PROXY header replaces its `sockaddr`.

        Raises:
            HandshakeError: the handshake failed or timed out.
        """
        timed_out = HandshakeError(Counter.CLOSED_HANDSHAKE_TIMED_OUT, "timed out")
        with gevent.Timeout(self._timeout, timed_out):
            if self._proxy_protocol:
                connection.sockaddr = _read_proxy_header(connection) or connection.sockaddr
            if self._context is not None:
                assert isinstance(connection, TlsConnection)
                connection.begin_tls(self._context, server_side=True)
                _perform_tls_handshake(connection)


def _read_proxy_header(connection: Connection) -> SockAddr | None:
    try:
        return read_header(_receiver(connection))
    except InvalidHeaderError as error:
        raise HandshakeError(Counter.CLOSED_PROXY_HEADER_INVALID, str(error)) from error


def _receiver(connection: Connection) -> Callable[[int], bytes]:
    """Return a function that receives an exact number of bytes, for `read_header`."""

    def receive(size: int) -> bytes:
        received = bytearray()
        while len(received) < size:
            try:
                # Not through TLS, also on a TlsConnection: the PROXY header is not encrypted.
                piece = connection.recv(size - len(received))
            except BlockingIOError:
                wait_read(connection.fileno())
                continue
            except OSError as error:
                reason = error.strerror or repr(error)
                raise HandshakeError(Counter.CLOSED_RESET, reason) from error
            if not piece:
                raise HandshakeError(
                    Counter.CLOSED_PROXY_HEADER_INVALID, "the stream ended inside the PROXY header"
                )
            received += piece
        return bytes(received)

    return receive


def _perform_tls_handshake(connection: TlsConnection) -> None:
    while True:
        try:
            connection.tls.do_handshake()
        except ssl.SSLWantReadError:
            wait_read(connection.fileno())
        except ssl.SSLWantWriteError:
            wait_write(connection.fileno())
        except OSError as error:
            if connection.is_reset(error):
                raise HandshakeError(Counter.CLOSED_RESET, "reset by the peer") from error
            reason = getattr(error, "reason", None) or error.strerror or repr(error)
            raise HandshakeError(Counter.CLOSED_TLS_FAILED, str(reason)) from error
        else:
            return
