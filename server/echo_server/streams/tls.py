"""TLS: the context, and a connection with the interface of a plain one.

Half-close is supported as in TLS 1.3: a client that sends close_notify gets everything it sent
back, and then the server's close_notify (RFC 8446, section 6.1). Many clients cannot read after
theirs.
"""

from __future__ import annotations

import ssl
from typing import Any

from echo_core.epoll_set import OtherDirectionError
from echo_core.openssl_socket import OpenSslSocket
from echo_core.tls_files import load_authorities, load_certificate
from echo_server.config import ServerConfig
from echo_server.streams.connection import Connection


def server_context(config: ServerConfig) -> ssl.SSLContext:
    """Return the TLS context, for TLS 1.2 or later; the configuration must name a certificate.

    Raises:
        TlsFileError: a file cannot be read or used, or the key does not belong to the certificate.
    """
    assert config.tls_cert is not None
    assert config.tls_key is not None

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Without this, a TLS 1.2 client could renegotiate without limit, which is expensive.
    context.options |= ssl.OP_NO_RENEGOTIATION
    load_certificate(context, config.tls_cert, config.tls_key)
    if config.tls_client_ca is not None:
        load_authorities(context, "--tls-client-ca", config.tls_client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class TlsConnection(OpenSslSocket, Connection):
    """A TLS connection with the interface of a plain one."""

    # The OpenSSL connection has a weak reference to the socket.
    __slots__ = ("__weakref__", "tls")

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.tls = None

    def recv_into(self, buffer: Any, *_: Any) -> int:
        """Receive decrypted bytes; 0 at the end of the stream, with close_notify or without."""
        if self.unsent:
            # A send waits until the socket is readable: OpenSSL must read first, not the echo.
            raise OtherDirectionError
        try:
            received: int = self.tls.read(len(buffer), buffer)
        except ssl.SSLError as error:
            self.end_of_stream(error)
            return 0
        return received

    def end_sending(self) -> None:
        """Send close_notify and the end of the stream; then the connection can only be closed."""
        self.send_close_notify()
        super().end_sending()

    def abort_at_close(self) -> None:
        """Let `close` send a reset, without close_notify."""
        self.tls = None
        super().abort_at_close()
