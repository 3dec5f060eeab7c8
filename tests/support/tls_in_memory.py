"""The server's side of TLS in memory: a test decides how the encrypted bytes reach the client."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress

from support.certificates import Certificates


class TlsInMemory:
    """The server's side of a TLS connection after its handshake.

    Args:
        accepted: the connected socket.
        certificates: those of the server.
    """

    def __init__(self, accepted: socket.socket, certificates: Certificates) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates.cert, certificates.key)
        self._socket = accepted
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        done = False
        while not done:
            try:
                self._tls.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                accepted.sendall(self._outgoing.read())
                self._receive()
        accepted.sendall(self._outgoing.read())

    def receive_exactly(self, size: int) -> bytes:
        """Receive and decrypt `size` bytes."""
        received = b""
        while len(received) < size:
            try:
                received += self._tls.read(size - len(received))
            except ssl.SSLWantReadError:
                self._receive()
        return received

    def encrypted(self, data: bytes) -> bytes:
        """Return the records of some data, not sent."""
        self._tls.write(data)
        return self._outgoing.read()

    def close_notify(self) -> bytes:
        """Return the record of the end of the stream, not sent."""
        with suppress(ssl.SSLError):
            self._tls.unwrap()
        return self._outgoing.read()

    def _receive(self) -> None:
        received = self._socket.recv(65536)
        if not received:
            raise ConnectionError("the client closed the connection")
        self._incoming.write(received)
