"""Both sides of TLS through OpenSSL's C interface, for messages that Python's ssl cannot send."""

from __future__ import annotations

import _ssl
import ctypes
import select
import socket
from typing import Any

# openssl/ssl.h
_KEY_UPDATE_REQUESTED = 1
_FILETYPE_PEM = 1
_WANTS = {2, 3}  # SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE

# The library that Python itself uses.
_OPENSSL = ctypes.CDLL(_ssl.__file__)
for _name in ("TLS_client_method", "TLS_server_method", "SSL_CTX_new", "SSL_new"):
    getattr(_OPENSSL, _name).restype = ctypes.c_void_p


class OpenSslPeer:
    """One end of a TLS 1.3 connection that can request key updates from the other end.

    Args:
        connected: a connected socket; it becomes non-blocking.
        certificate: PEM file with the certificate and the key of a server; None for a client.
    """

    def __init__(self, connected: socket.socket, certificate: str | None = None) -> None:
        self._socket = connected
        method = "TLS_client_method" if certificate is None else "TLS_server_method"
        context = ctypes.c_void_p(_OPENSSL.SSL_CTX_new(ctypes.c_void_p(_call(method))))
        if certificate is not None:
            name = certificate.encode()
            assert _OPENSSL.SSL_CTX_use_certificate_chain_file(context, name) == 1
            assert _OPENSSL.SSL_CTX_use_PrivateKey_file(context, name, _FILETYPE_PEM) == 1
        self._ssl = ctypes.c_void_p(_OPENSSL.SSL_new(context))
        assert _OPENSSL.SSL_set_fd(self._ssl, connected.fileno()) == 1
        connected.setblocking(True)
        step = _OPENSSL.SSL_connect if certificate is None else _OPENSSL.SSL_accept
        assert step(self._ssl) == 1
        connected.setblocking(False)

    def close(self) -> None:
        """Close the socket without close_notify."""
        self._socket.close()

    def request_key_updates(self) -> int:
        """Request key updates until the other end receives no more or closes.

        Returns:
            The number of requests.
        """
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        requests = 0
        while poll.poll(500):
            wanted = _OPENSSL.SSL_key_update(self._ssl, _KEY_UPDATE_REQUESTED) == 1
            done = _OPENSSL.SSL_do_handshake(self._ssl)
            if done != 1 and _OPENSSL.SSL_get_error(self._ssl, done) not in _WANTS:
                # The other end has closed the connection.
                break
            requests += wanted
        return requests

    def exchange(self, message: bytes) -> bytes:
        """Send a message and receive as many bytes, while TLS is handled as needed."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        buffer = ctypes.create_string_buffer(len(message))
        received = b""
        sent = False
        while len(received) < len(message):
            size = _OPENSSL.SSL_read(self._ssl, buffer, len(message) - len(received))
            if size > 0:
                received += buffer.raw[:size]
            elif not sent:
                sent = _OPENSSL.SSL_write(self._ssl, message, len(message)) == len(message)
            else:
                assert poll.poll(60_000), "nothing came back"
        return received


def _call(name: str) -> Any:
    return getattr(_OPENSSL, name)()
