"""Handshakes that precede the echo on some listeners: a PROXY header, TLS.

Here a connection has a greenlet: it must wait for its peer, step by step and up to a deadline.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable

import gevent
from gevent.socket import wait_read, wait_write

from echo_server.errors import HandshakeError
from echo_server.metrics.counters import Counter
from echo_server.streams.connection import Connection
from echo_server.streams.proxy_protocol import read_header
from echo_server.streams.tls import TlsConnection


class Handshake:
    """Everything that a connection of one listener must do before it is echoed.

    Args:
        timeout: seconds that it gets for all of it.
        proxy_protocol: it begins with a PROXY header.
        context: it speaks TLS.
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
        """Perform the handshakes of a connection; its peer is then the client behind the proxy.

        Raises:
            HandshakeError: it did not get so far.
        """
        late = HandshakeError(Counter.CLOSED_HANDSHAKE_TIMED_OUT, "timed out")
        with gevent.Timeout(self._timeout, late):
            if self._proxy_protocol:
                connection.sockaddr = read_header(_receiver(connection)) or connection.sockaddr
            if self._context is not None:
                assert isinstance(connection, TlsConnection)
                connection.begin_tls(self._context, server_side=True)
                _shake_hands(connection)


def _receiver(connection: Connection) -> Callable[[int], bytes]:
    def receive(size: int) -> bytes:
        received = bytearray()
        while len(received) < size:
            try:
                # Past TlsConnection: the header comes before TLS, in the clear.
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


def _shake_hands(connection: TlsConnection) -> None:
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
