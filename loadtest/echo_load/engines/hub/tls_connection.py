"""A TLS connection of the hub engine.

Import this module only when TLS is used: it imports `ssl`, which must come after gevent's patching.
"""

from __future__ import annotations

import socket
import ssl
import time
from contextlib import suppress
from typing import Any

from echo_client.addresses import Address
from echo_client.connecting import no_handshake
from echo_client.tls_socket import negotiated, protocol_error
from echo_core.epoll_set import READABLE, WRITABLE
from echo_core.openssl_socket import LARGEST_RECORD, OpenSslSocket
from echo_load.engines.hub.connection import HandshakeRejectedError, HubConnection

Sessions = dict[Address, ssl.SSLSession]


class TlsConnection(OpenSslSocket, HubConnection):
    """A connection that receives and sends through OpenSSL.

    Attributes:
        connect_ns: time that connecting took, without the handshake, in nanoseconds.
        handshake_begin_ns: instant at which the handshake began, in nanoseconds of the monotonic
            clock.
        handshake_events: events to watch for to continue the handshake.
        sessions: TLS sessions of earlier connections by address. The session for the address is
            resumed, and replaced by that of this connection. None to resume none.
        ended: True once OpenSSL has reported the end of the stream, which epoll may not.
        failure: error with which it ended; None for an end of stream.
    """

    __slots__ = (
        "__weakref__",
        "connect_ns",
        "ended",
        "failure",
        "handshake_begin_ns",
        "handshake_events",
        "sessions",
        "tls",
    )

    connect_ns: int
    handshake_begin_ns: int
    handshake_events: int
    sessions: Sessions | None
    ended: bool
    failure: OSError | None

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.tls = None
        self.connect_ns = self.handshake_begin_ns = 0
        self.handshake_events = READABLE
        self.sessions = None
        self.ended = False
        self.failure = None

    @property
    def in_handshake(self) -> bool:
        """True if the TLS handshake has begun."""
        return self.tls is not None

    @property
    def resumed(self) -> bool:
        """True if the handshake resumed the session of an earlier connection."""
        reused: bool = self.tls.session_reused
        return reused

    @property
    def cipher(self) -> str:
        """The version and the cipher of TLS, after the handshake."""
        return negotiated(self.tls)

    def begin_handshake(
        self,
        context: ssl.SSLContext,
        server_name: str | None,
        connect_ns: int,
        sessions: Sessions | None,
    ) -> None:
        """Begin the handshake on the connected socket; then call `proceed`.

        Args:
            context: the TLS context.
            server_name: name that the certificate must match; None for the host of the address.
            connect_ns: time that connecting took in nanoseconds.
            sessions: see the attribute.

        Raises:
            HandshakeError: the name is not valid.
        """
        self.connect_ns = connect_ns
        self.handshake_begin_ns = time.monotonic_ns()
        self.sessions = sessions
        try:
            self.begin_tls(
                context,
                server_side=False,
                server_name=server_name or self.address.host or None,
                session=sessions.get(self.address) if sessions else None,
            )
        except ValueError as error:
            raise no_handshake(self.address, str(error)) from error

    def proceed(self) -> bool:
        """Continue the handshake; return True when it is complete.

        Otherwise call this again after one of the `handshake_events`.

        Raises:
            HandshakeError: the handshake failed, or the connection broke.
        """
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            self.handshake_events = READABLE
        except ssl.SSLWantWriteError:
            self.handshake_events = WRITABLE
        except OSError as error:
            raise no_handshake(self.address, self._reason(error)) from error
        else:
            return True
        return False

    def _reason(self, error: OSError) -> str:
        if isinstance(error, ssl.SSLEOFError):
            reset = self.is_reset(error)
            return "reset by the peer" if reset else "the server closed the connection"
        if isinstance(error, ssl.SSLError):
            error = protocol_error(error)
        return error.strerror or str(error)

    def recv(self, size: int, *_: Any) -> bytes:
        """Receive and decrypt up to `size` bytes, or more, to the end of the last record.

        The result is empty at the end of the stream, with close_notify or without. An error is
        raised once all bytes before it have been returned.
        """
        if self.ended:
            return self._end()
        data = self._read(min(size, LARGEST_RECORD), fresh=self.fresh)
        if not data or (len(data) >= size and not self.tls.pending()):
            return data
        pieces, total = [data], len(data)
        while total < size or self.tls.pending():
            try:
                data = self._read(
                    LARGEST_RECORD if total >= size else min(size - total, LARGEST_RECORD),
                    fresh=False,
                )
            except BlockingIOError:
                break
            except OSError as error:
                self._note_end(error)
                break
            if not data:
                self._note_end(None)
                break
            pieces.append(data)
            total += len(data)
        return b"".join(pieces)

    def send(self, data: Any, *_: Any) -> int:
        """Encrypt and send as much as the socket accepts; return the number of plaintext bytes.

        Once the stream has ended it accepts nothing, as if its buffer were full: the next receive
        reports the end.
        """
        if self.ended:
            raise BlockingIOError
        # A call that fails does not tell how much of its data has left: of a record, nothing has.
        view = memoryview(data) if len(data) > LARGEST_RECORD else data
        sent = super().send(view[:LARGEST_RECORD])
        # An error is raised again by the next call.
        with suppress(OSError):
            while sent < len(view):
                sent += super().send(view[sent : sent + LARGEST_RECORD])
        return sent

    def _note_end(self, failure: OSError | None) -> None:
        """Keep the end of the stream for the next receive, and let epoll report it."""
        self.ended = True
        self.failure = failure
        # epoll sees neither what OpenSSL has read nor an error that a receive has reported.
        with suppress(OSError):
            self.shutdown(socket.SHUT_RD)

    def _end(self) -> bytes:
        if self.failure is not None:
            raise self.failure
        return b""

    def _read(self, size: int, *, fresh: bool) -> bytes:
        """Receive and decrypt at most one record; return no bytes at the end of the stream.

        Args:
            size: how many bytes at most.
            fresh: nothing has come back yet.

        Raises:
            BlockingIOError: no complete record has arrived.
            HandshakeRejectedError: the server rejected the client after the client had completed
                the handshake.
            OSError: the connection broke.
        """
        try:
            data: bytes = self.tls.read(size)
        except ssl.SSLError as error:
            if fresh and "_ALERT_" in (error.reason or ""):
                text = f"TLS handshake failed: {protocol_error(error).strerror}"
                raise HandshakeRejectedError(text) from error
            if self.broken and isinstance(error, ssl.SSLEOFError):
                # The failed send has already consumed the error of the socket.
                raise self.broken from error
            self.end_of_stream(error)
            return b""
        if fresh and self.sessions is not None:
            # In TLS 1.3 the server sends the ticket after the handshake (RFC 8446, section 4.6.1).
            self.sessions[self.address] = self.tls.session
        return data
