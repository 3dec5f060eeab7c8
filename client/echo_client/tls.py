"""A client's TLS options.

`ssl` is imported only when a context is created: this module may be imported before gevent patches
the process, but `ssl` must not be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from echo_core.tls_files import TlsFileError, load_authorities, load_certificate

if TYPE_CHECKING:
    import ssl


@dataclass(frozen=True)
class TlsOptions:
    """The certificates to trust and to present.

    Attributes:
        ca: file of the certificate authorities to trust; None for the system's.
        cert: file of the client's certificate and its chain, in PEM format; None for none.
        key: file of the unencrypted key; None if the key is in the same file.
        server_name: the name that is sent to the server (SNI) and that its certificate must match;
            None for the host of the target.
        insecure: True to accept any certificate.
    """

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    server_name: str | None = None
    insecure: bool = False

    @property
    def files(self) -> tuple[str | None, ...]:
        """The files that `context` reads; None for each one that is not set."""
        return self.ca, self.cert, self.key

    def context(self) -> ssl.SSLContext:
        """Create a client context from the files, for TLS 1.2 or later.

        This takes milliseconds, so many connections should share one context.

        Raises:
            TlsFileError: a file cannot be read or used, or the key does not belong to the
                certificate.
        """
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # With renegotiation a send could have to receive, and one thread could not send while
        # another receives.
        context.options |= ssl.OP_NO_RENEGOTIATION
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.ca is None:
            context.load_default_certs()
        else:
            load_authorities(context, "--tls-ca", self.ca)
        if self.cert is not None:
            load_certificate(context, self.cert, self.key)
        elif self.key is not None:
            raise TlsFileError(f"--tls-key: {self.key} needs --tls-cert FILE")
        return context
