"""A non-blocking socket that is read and written through OpenSSL, without `ssl.SSLSocket`.

Import this module only when TLS is used: it imports `ssl`, which must come after gevent's patching.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import ssl
from typing import Any

from echo_core.epoll_set import OtherDirectionError

# The largest payload of a record in bytes (RFC 8446, section 5.1).
LARGEST_RECORD = 16 * 1024


class OpenSslSocket(_socket.socket):
    """One side of TLS; what would block raises BlockingIOError, as on a plain socket.

    A derived class has the slots `tls` and `__weakref__`: OpenSSL's side refers to the socket,
    weakly. It speaks to OpenSSL as `ssl.SSLSocket` does, but with a Python call less each way.

    Attributes:
        tls: OpenSSL's side of the connection; None before `begin_tls`, and once nothing more is to
            be said.
    """

    __slots__ = ()

    tls: Any

    def begin_tls(
        self,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_name: str | None = None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        """Begin TLS; then call `do_handshake` of `tls` until it is done.

        Args:
            context: the TLS context.
            server_side: this is the server.
            server_name: the name that the server's certificate must match.
            session: the session to resume, if the server agrees.

        Raises:
            ValueError: the name is not valid, or is missing although the context checks it.
        """
        if not server_side and context.check_hostname and not server_name:
            raise ValueError("no server name is given for the certificate")
        wrap = context._wrap_socket  # type: ignore[attr-defined]  # noqa: SLF001
        self.tls = wrap(self, server_side, server_name, session=session)

    def pending(self) -> int:
        """Bytes of a record whose beginning has been received, where epoll does not see them."""
        pending: int = self.tls.pending()
        return pending

    def end_of_stream(self, error: ssl.SSLError) -> None:
        """Return if a failed read is the end of the stream, with close_notify or without.

        Raises:
            BlockingIOError: more has to arrive first.
            OtherDirectionError: the socket has to become writable first.
            ConnectionResetError: the peer reset the connection.
            SSLError: the peer violated the protocol, or sent an alert.
        """
        if isinstance(error, ssl.SSLWantReadError):
            raise BlockingIOError from error
        if isinstance(error, ssl.SSLWantWriteError):
            raise OtherDirectionError from error
        if isinstance(error, ssl.SSLZeroReturnError):
            return
        if not isinstance(error, ssl.SSLEOFError):
            raise error
        if self.is_reset(error):
            raise ConnectionResetError(errno.ECONNRESET, "reset by the peer") from error

    def send(self, data: Any, *_: Any) -> int:
        """Encrypt and send at most one record; return the number of plain bytes taken.

        After a BlockingIOError, the data of the next call must begin with the same bytes.
        """
        try:
            sent: int = self.tls.write(data)
        except ssl.SSLWantWriteError as error:
            raise BlockingIOError from error
        except ssl.SSLWantReadError as error:
            raise OtherDirectionError from error
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            # The error that send(2) would have returned is lost.
            raise BrokenPipeError(errno.EPIPE, "broken pipe") from error
        return sent

    def is_reset(self, error: OSError) -> bool:
        """Return True if an OpenSSL error was a reset, or a timeout, of the connection.

        Python's SSLEOFError stands for both a failed system call, whose errno it loses, and an end
        of stream, for which OpenSSL 3 gives a reason. A socket whose connection is lost has no peer
        any more (getpeername(2), ENOTCONN).
        """
        if isinstance(error, ConnectionError):
            return True
        if not isinstance(error, ssl.SSLEOFError) or error.reason is not None:
            return False
        try:
            self.getpeername()
        except OSError:
            return True
        return False

    def close(self) -> None:
        """Send close_notify if that is possible without blocking, and close."""
        if self.tls is not None:
            # A peer that is gone, or that takes nothing more, does not want to hear it.
            with contextlib.suppress(OSError):
                self.tls.shutdown()
            self.tls = None
        super().close()
