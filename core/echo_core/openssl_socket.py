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

    It calls OpenSSL in the same way as `ssl.SSLSocket`, with one Python call less per operation. A
    derived class has the slots `tls` and `__weakref__`: the OpenSSL connection has a weak reference
    to the socket.

    Attributes:
        tls: the OpenSSL connection (`_ssl._SSLSocket`); None before `begin_tls`, and if no
            close_notify is to be sent.
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
        """Create `tls`; then call its `do_handshake` until it succeeds.

        Args:
            context: the TLS context.
            server_side: whether this is the server's side.
            server_name: the name that the server's certificate must match.
            session: the session to resume, if the server agrees.

        Raises:
            ValueError: the name is not valid, or is missing although the context checks it.
        """
        if not server_side and context.check_hostname and not server_name:
            raise ValueError("no server name is given for the certificate")
        if server_name is not None:
            # As `ssl.SSLContext.wrap_socket` does (RFC 6066, section 3: A-labels).
            server_name = server_name.encode("idna").decode("ascii")
        wrap = context._wrap_socket  # type: ignore[attr-defined]  # noqa: SLF001
        self.tls = wrap(self, server_side, server_name, session=session)

    def pending(self) -> int:
        """Return the number of decrypted bytes that OpenSSL holds, which epoll does not report."""
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
        """Encrypt and send data; return the number of plaintext bytes, which is all of them.

        After a BlockingIOError, the data of the next call must begin with the same bytes. Some of
        them may have left, in whole records: pass at most `LARGEST_RECORD` to know how many.
        """
        try:
            sent: int = self.tls.write(data)
        except ssl.SSLWantWriteError as error:
            raise BlockingIOError from error
        except ssl.SSLWantReadError as error:
            raise OtherDirectionError from error
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            # OpenSSL does not report the error that send(2) returned.
            raise BrokenPipeError(errno.EPIPE, "broken pipe") from error
        return sent

    def is_reset(self, error: OSError) -> bool:
        """Return True if an OpenSSL error was caused by a reset, or a timeout, of the connection.

        Python raises SSLEOFError both for a failed system call, without its errno, and for an end
        of stream, for which OpenSSL 3 gives a reason. After a reset or a timeout the socket has no
        peer (getpeername(2), ENOTCONN).
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

    def send_close_notify(self) -> None:
        """Send close_notify if that is possible without blocking; further calls have no effect."""
        if self.tls is not None:
            # It fails if the connection is lost or the send buffer is full, which does not matter.
            with contextlib.suppress(OSError):
                self.tls.shutdown()
            self.tls = None

    def close(self) -> None:
        """Send close_notify if that is possible without blocking, and close."""
        self.send_close_notify()
        super().close()
