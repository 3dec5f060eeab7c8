"""TLS: the context, and a connection with the interface of a plain one.

Half-close works as far as TLS 1.3 has it: who sends close_notify gets everything it sent back, and
then the server's close_notify (RFC 8446, section 6.1). Many clients cannot read after their own.
"""

from __future__ import annotations

import contextlib
import errno
import ssl
from typing import Any

from echo_core.tls_files import load_authorities, load_certificate
from echo_server.config import ServerConfig
from echo_server.streams.connection import Connection, OtherDirectionError


def server_context(config: ServerConfig) -> ssl.SSLContext:
    """Return the context of a configuration with certificate and key, for TLS 1.2 or later.

    Raises:
        TlsFileError: a file cannot be read, is not what it should be, or the key does not fit.
    """
    assert config.tls_cert is not None
    assert config.tls_key is not None

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A client of TLS 1.2 could let the server shake hands without end.
    context.options |= ssl.OP_NO_RENEGOTIATION
    load_certificate(context, config.tls_cert, config.tls_key)
    if config.tls_client_ca is not None:
        load_authorities(context, "--tls-client-ca", config.tls_client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class TlsConnection(Connection):
    """A TLS connection; what would block raises BlockingIOError, as on a plain connection.

    It speaks to OpenSSL as `ssl.SSLSocket` does, but without it: a Python call less each way.

    Attributes:
        tls: OpenSSL's side of the connection; None once nothing more is to be said.
    """

    # OpenSSL's side refers to the socket, weakly.
    __slots__ = ("__weakref__", "tls")

    tls: Any

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.tls = None

    def begin(self, context: ssl.SSLContext) -> None:
        """Begin the server's side of TLS; then call `do_handshake` of `tls` until it is done."""
        self.tls = context._wrap_socket(self, True)  # type: ignore[attr-defined]  # noqa: SLF001

    def pending(self) -> int:
        """Bytes of a record whose beginning has been received, where epoll does not see them."""
        pending: int = self.tls.pending()
        return pending

    def recv_into(self, buffer: Any, *_: Any) -> int:
        """Receive decrypted bytes; 0 at the end of the stream, with close_notify or without."""
        if self.unsent:
            # A send waits for something to read, which is OpenSSL's and not ours.
            raise OtherDirectionError
        try:
            received: int = self.tls.read(len(buffer), buffer)
        except ssl.SSLWantReadError as error:
            raise BlockingIOError from error
        except ssl.SSLWantWriteError as error:
            raise OtherDirectionError from error
        except ssl.SSLZeroReturnError:
            return 0
        except ssl.SSLEOFError as error:
            if self.is_reset(error):
                raise ConnectionResetError(errno.ECONNRESET, "reset by the peer") from error
            return 0
        return received

    def send(self, data: Any, *_: Any) -> int:
        """Encrypt and send; return the number of plain bytes taken."""
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

    def abort_at_close(self) -> None:
        """Let `close` send a reset, without close_notify."""
        self.tls = None
        super().abort_at_close()

    def close(self) -> None:
        """Send close_notify if that is possible without blocking, and close."""
        if self.tls is not None:
            # A peer that is gone, or that takes nothing more, does not want to hear it.
            with contextlib.suppress(OSError):
                self.tls.shutdown()
            self.tls = None
        super().close()
