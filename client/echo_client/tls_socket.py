"""TLS over a connected socket, with the interface of a plain socket.

Import this module only when TLS is used: it imports `ssl`, which must come after gevent's patching.
"""

from __future__ import annotations

import errno
import select
import socket
import ssl
import threading
import time
from contextlib import suppress
from typing import Any

from echo_client.deadlines import seconds_until, set_timeout, wait
from echo_client.errors import HandshakeError
from echo_core.openssl_socket import LARGEST_RECORD

_RECEIVE = 64 * 1024
# Responses to key updates (RFC 8446, section 4.6.3), of 24 bytes each, wait for the next send. Only
# a malicious server requests this many in one reply.
_MOST_OWED = 256 * 1024
# OpenSSL's reasons when it receives data that is not TLS, or its own messages echoed.
_NO_TLS = {"WRONG_VERSION_NUMBER", "UNEXPECTED_MESSAGE", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"}


class TlsSocket:
    """The client's side of a TLS connection, encrypting and decrypting in memory.

    `ssl.SSLSocket` reads and writes the socket itself. It therefore does not let one thread send
    while another receives, cannot receive after its own close_notify, and ignores `SO_RCVTIMEO`.
    Here OpenSSL works on memory buffers under a lock, and the plain socket is read and written
    outside the lock, so this class has none of these limits. It is as fast.

    After a receive, no complete record is left in OpenSSL's buffers, where poll(2) would not see
    it.

    Args:
        plain: a connected socket; `close` closes it.
        context: the TLS context. Without `OP_NO_RENEGOTIATION`, two threads must not use the
            socket.
        server_name: the name that the certificate must match.

    Raises:
        ValueError: the name is not valid, or is missing although the context checks it.
    """

    def __init__(
        self, plain: socket.socket, context: ssl.SSLContext, server_name: str | None
    ) -> None:
        if context.check_hostname and not server_name:
            # `ssl.SSLSocket` refuses this, but `ssl.SSLObject` would not check the name.
            raise ValueError("no server name is given for the certificate")
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        self._plain = plain
        self._lock = threading.Lock()
        self._timeout = 0.0
        self._ended = False
        # The error with which the stream has ended; None for an end of stream.
        self._failure: OSError | None = None
        # Application data has been received.
        self._has_received = False
        # Encrypted data not yet sent, and the number of plain bytes in it.
        self._unsent: memoryview | bytes = b""
        self._plain_bytes_unsent = 0

    @property
    def family(self) -> int:
        """The address family."""
        return self._plain.family

    @property
    def cipher(self) -> str:
        """The version and the cipher of TLS, after the handshake."""
        return negotiated(self._tls)

    def do_handshake(self, timeout: float) -> None:
        """Perform the TLS handshake within a timeout in seconds.

        Raises:
            TimeoutError: the peer did not answer in time.
            OSError: the handshake failed, or the connection broke or was closed.
        """
        deadline = time.monotonic() + timeout
        done = False
        while not done:
            try:
                self._tls.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as error:
                raise protocol_error(error) from error
            self._plain.settimeout(seconds_until(deadline))
            if record := self._outgoing.read():
                self._plain.sendall(record)
            if not done:
                received = self._plain.recv(_RECEIVE)
                if not received:
                    raise OSError(errno.ECONNABORTED, "the server closed the connection")
                self._incoming.write(received)

    def settimeout(self, seconds: float) -> None:
        """Set the timeout of each receive and send in seconds."""
        self._timeout = seconds
        set_timeout(self._plain, seconds)

    def sendall(self, data: bytes) -> None:
        """Encrypt all of the data and send it."""
        try:
            for begin in range(0, len(data), _RECEIVE):
                self._unsent = self._encrypted(data[begin : begin + _RECEIVE])
                self._plain.sendall(self._unsent)
                self._unsent = b""
        except ConnectionError:
            self._raise_refusal()
            raise

    def send(self, data: bytes | memoryview, flags: int = 0) -> int:
        """Encrypt the beginning of the data and send as much of it as possible.

        Returns:
            The number of plain bytes sent; 0 while a part of the encrypted data is unsent. In that
            case the data of the next call must begin with the same bytes.
        """
        if not self._unsent:
            beginning = data[:_RECEIVE]
            self._unsent = memoryview(self._encrypted(beginning))
            self._plain_bytes_unsent = len(beginning)
        try:
            self._unsent = self._unsent[self._plain.send(self._unsent, flags) :]
        except ConnectionError:
            self._raise_refusal()
            raise
        return 0 if self._unsent else self._plain_bytes_unsent

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Receive and decrypt data; an empty result is the end, with or without close_notify.

        Args:
            size: the number of encrypted bytes to receive at most; the result may be longer by one
                record.
            flags: with `MSG_DONTWAIT`, an incomplete record raises BlockingIOError.

        Raises:
            HandshakeError: the server rejected the client after the client's part of the handshake.
            OSError: the connection broke; raised once all data before that have been returned.
        """
        if self._failure is not None:
            raise self._failure
        if self._ended:
            return b""
        deadline = time.monotonic() + self._timeout
        data = self._decrypted(b"") if self._incoming.pending else None
        while data is None:
            received = self._plain.recv(size, flags)
            if not received:
                return b""
            data = self._decrypted(received)
            if data is None:
                if flags & socket.MSG_DONTWAIT:
                    raise BlockingIOError(errno.EAGAIN, "no complete record has arrived")
                # Setting the timeout would affect the sending thread, too, so it polls instead.
                poll = select.poll()
                poll.register(self._plain, select.POLLIN)
                wait(poll, deadline)
        return data

    def shutdown(self, how: int) -> None:
        """Shut down one or both directions.

        `SHUT_WR` sends close_notify, and data can still be received. Any other value shuts down
        the plain socket, which wakes up a thread that waits on it.
        """
        if how != socket.SHUT_WR:
            self._plain.shutdown(how)
        elif pending := self._close_notify():
            self._plain.sendall(pending)

    def close(self) -> None:
        """Send close_notify if that is possible without blocking, and close the socket."""
        pending = self._close_notify()
        with suppress(OSError):
            if not self._unsent:
                self._plain.settimeout(0)
                self._plain.send(pending)
        self._plain.close()

    def fileno(self) -> int:
        """Return the descriptor of the socket."""
        return self._plain.fileno()

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        """Return the value of an option of the socket."""
        return self._plain.getsockopt(level, option, size)

    def _encrypted(self, data: bytes | memoryview) -> bytes:
        with self._lock:
            try:
                written = self._tls.write(data)
                while written < len(data):
                    written += self._tls.write(memoryview(data)[written:])
            except ssl.SSLError as error:
                raise protocol_error(error) from error
            return self._outgoing.read()

    def _decrypted(self, received: bytes) -> bytes | None:
        """Decrypt received data; return None if it contains no complete application data yet."""
        pieces = []
        with self._lock:
            self._incoming.write(received)
            try:
                while self._incoming.pending:
                    piece = self._tls.read(LARGEST_RECORD)
                    if not piece:
                        self._ended = True
                        break
                    self._has_received = True
                    pieces.append(piece)
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLZeroReturnError:
                self._ended = True
            except ssl.SSLError as error:
                broken = protocol_error(error)
                if "_ALERT_" in (error.reason or "") and not self._has_received:
                    # In TLS 1.3 the client completes the handshake before the server has checked
                    # its certificate.
                    raise HandshakeError(f"TLS handshake failed: {broken.strerror}") from error
                if not pieces:
                    raise broken from error
                self._ended = True
                self._failure = broken
            if self._outgoing.pending > _MOST_OWED:
                raise OSError(errno.EPROTO, "the server sends too many key updates")
        if self._ended and pieces:
            # poll(2) does not see an end that OpenSSL has received.
            with suppress(OSError):
                self._plain.shutdown(socket.SHUT_RD)
        return b"".join(pieces) if pieces or self._ended else None

    def _raise_refusal(self) -> None:
        """Raise the reason for which sending failed, if the peer has sent one."""
        self._plain.settimeout(0)
        with suppress(OSError):
            while received := self._plain.recv(_RECEIVE):
                self._decrypted(received)

    def _close_notify(self) -> bytes:
        """Return the encrypted data to send, which ends with close_notify."""
        with self._lock:
            # unwrap() reports that the peer's close_notify has not arrived, which is not needed.
            with suppress(ssl.SSLError):
                self._tls.unwrap()
            return self._outgoing.read()


def negotiated(tls: Any) -> str:
    """Return the version and the cipher of a TLS connection: `TLSv1.3 TLS_AES_256_GCM_SHA384`.

    Args:
        tls: an `ssl.SSLObject`, or the OpenSSL connection of an `OpenSslSocket`.
    """
    return f"{tls.version()} {tls.cipher()[0]}"


def protocol_error(error: ssl.SSLError) -> OSError:
    """Convert an SSLError to an OSError with a readable message."""
    reason = (error.reason or str(error)).lower().replace("_", " ")
    _, alert, meaning = reason.partition(" alert ")
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = f"certificate verify failed: {error.verify_message}"
    elif error.reason in _NO_TLS:
        reason = f"the server does not speak TLS ({reason})"
    elif alert:
        reason = f"the server sent the alert {meaning!r}"
    return OSError(errno.EPROTO, reason)
