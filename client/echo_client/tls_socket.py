"""TLS over a connected socket, read and written like a plain one.

Import it only where TLS is spoken: it imports `ssl`, which must come after gevent's patching.
"""

from __future__ import annotations

import errno
import select
import socket
import ssl
import threading
import time
from contextlib import suppress

from echo_client.deadlines import seconds_until, set_timeout, wait
from echo_client.errors import HandshakeError

# The most that one record holds (RFC 8446, section 5.1).
LARGEST_RECORD = 16 * 1024
_RECEIVE = 64 * 1024
# Answers to key updates (RFC 8446, section 4.6.3) wait for the next send, 24 bytes each. A server
# that asks for so many in one reply means no good.
_MOST_OWED = 256 * 1024
# What OpenSSL makes of bytes that are no record, or of its own words that come back.
_NO_TLS = {"WRONG_VERSION_NUMBER", "UNEXPECTED_MESSAGE", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"}


class TlsSocket:
    """The client's side of TLS, in memory, between its user and a plain socket.

    `ssl.SSLSocket` would read and write the socket by itself, and then can neither be used by a
    thread that sends and one that receives, nor read on after its own close_notify, nor wait as
    long as `SO_RCVTIMEO` says. Here only plain bytes wait for the network, outside the lock that
    keeps OpenSSL's calls apart; so what holds of the plain socket holds of this one. It is as fast.

    After a receive no whole record is left in OpenSSL's hands, where poll(2) does not see it.

    Args:
        plain: a connected socket; closed by `close`.
        context: how to speak TLS. Without `OP_NO_RENEGOTIATION` two threads must not use it.
        server_name: what the certificate must be for.

    Raises:
        ValueError: the name cannot be one, or there is none and the context wants it checked.
    """

    def __init__(
        self, plain: socket.socket, context: ssl.SSLContext, server_name: str | None
    ) -> None:
        if context.check_hostname and not server_name:
            # A socket of `ssl` refuses this. In memory the name would go unchecked.
            raise ValueError("no server name is given for the certificate")
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        self._plain = plain
        self._lock = threading.Lock()
        self._timeout = 0.0
        self._ended = False
        # The other end has sent something that was meant for the reader.
        self._spoken_to = False
        # What is encrypted and not sent yet, and how many plain bytes are in it.
        self._unsent: memoryview | bytes = b""
        self._plain_bytes_unsent = 0

    @property
    def family(self) -> int:
        """The address family."""
        return self._plain.family

    def do_handshake(self, timeout: float) -> None:
        """Shake hands within so many seconds.

        Raises:
            TimeoutError: the other end did not answer in time.
            OSError: the two do not agree, or the connection broke or ended.
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
                raise _broken(error) from error
            self._plain.settimeout(seconds_until(deadline))
            if record := self._outgoing.read():
                self._plain.sendall(record)
            if not done:
                received = self._plain.recv(_RECEIVE)
                if not received:
                    raise OSError(errno.ECONNABORTED, "the server closed the connection")
                self._incoming.write(received)

    def settimeout(self, seconds: float) -> None:
        """Let each receive and send wait so long at most."""
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
        """Encrypt the beginning of the data and send as much of it as goes.

        Returns:
            How many plain bytes left; 0 while a part of what was encrypted still has to. The data
            of the next call must begin with the same bytes then.
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
        """Receive what there is; nothing at the end, with close_notify or without.

        Raises HandshakeError where the server refused this end after its own part was done.

        Args:
            size: encrypted bytes that are received at once; it may be a record more than these.
            flags: with `MSG_DONTWAIT`, bytes that end no record raise BlockingIOError.
        """
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
                    raise BlockingIOError(errno.EAGAIN, "no whole record has come")
                # Its timeout has begun before, and is that of the thread that sends, too.
                poll = select.poll()
                poll.register(self._plain, select.POLLIN)
                wait(poll, deadline)
        return data

    def shutdown(self, how: int) -> None:
        """With `SHUT_WR` say close_notify; what comes can still be received.

        With any other, shut down the socket itself: whoever waits in it sees the end.
        """
        if how != socket.SHUT_WR:
            self._plain.shutdown(how)
        elif farewell := self._close_notify():
            self._plain.sendall(farewell)

    def close(self) -> None:
        """Say close_notify, if it can be said at once, and close the socket."""
        farewell = self._close_notify()
        with suppress(OSError):
            if not self._unsent:
                self._plain.settimeout(0)
                self._plain.send(farewell)
        self._plain.close()

    def fileno(self) -> int:
        """The descriptor of the socket."""
        return self._plain.fileno()

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        """An option of the socket."""
        return self._plain.getsockopt(level, option, size)

    def _encrypted(self, data: bytes | memoryview) -> bytes:
        with self._lock:
            try:
                written = self._tls.write(data)
                while written < len(data):
                    written += self._tls.write(memoryview(data)[written:])
            except ssl.SSLError as error:
                raise _broken(error) from error
            return self._outgoing.read()

    def _decrypted(self, received: bytes) -> bytes | None:
        """Take in what came; None where it holds nothing for the reader yet."""
        pieces = []
        with self._lock:
            self._incoming.write(received)
            try:
                while self._incoming.pending:
                    piece = self._tls.read(LARGEST_RECORD)
                    if not piece:
                        self._ended = True
                        break
                    self._spoken_to = True
                    pieces.append(piece)
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLZeroReturnError:
                self._ended = True
            except ssl.SSLError as error:
                broken = _broken(error)
                if "_ALERT_" in (error.reason or "") and not self._spoken_to:
                    # In TLS 1.3 the client is through with the handshake before the server has
                    # looked at its certificate.
                    raise HandshakeError(f"TLS handshake failed: {broken.strerror}") from error
                raise broken from error
            if self._outgoing.pending > _MOST_OWED:
                raise OSError(errno.EPROTO, "the server sends too many key updates")
        return b"".join(pieces) if pieces or self._ended else None

    def _raise_refusal(self) -> None:
        """The other end took no more: say why, if it has said so before."""
        self._plain.settimeout(0)
        with suppress(OSError):
            while received := self._plain.recv(_RECEIVE):
                self._decrypted(received)

    def _close_notify(self) -> bytes:
        """Return what remains to be sent, close_notify last; empty if it was sent."""
        with self._lock:
            # It asks for the other end's close_notify at once. That comes when it comes.
            with suppress(ssl.SSLError):
                self._tls.unwrap()
            return self._outgoing.read()


def _broken(error: ssl.SSLError) -> OSError:
    """The error that says what went wrong as people say it."""
    reason = (error.reason or str(error)).lower().replace("_", " ")
    _, alert, meaning = reason.partition(" alert ")
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = f"certificate verify failed: {error.verify_message}"
    elif error.reason in _NO_TLS:
        reason = f"the server does not speak TLS ({reason})"
    elif alert:
        reason = f"the server sent the alert {meaning!r}"
    return OSError(errno.EPROTO, reason)
