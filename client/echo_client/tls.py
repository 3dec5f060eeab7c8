"""A client's TLS options.

`ssl` is imported when a context is made: this module may be imported before gevent patches the
process, and `ssl` may not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from echo_core.tls_files import TlsFileError, load_authorities, load_certificate

if TYPE_CHECKING:
    import ssl


@dataclass(frozen=True)
class TlsOptions:
    """Whom to trust, and who to be.

    Attributes:
        ca: file of the authorities to trust instead of the system's.
        cert: file of the client's certificate and its chain, in PEM form.
        key: file of its key, without a passphrase; None where it is in the same file.
        server_name: the name that is asked for and that the certificate must be for; None for the
            host that is connected to.
        insecure: trust anybody.
    """

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    server_name: str | None = None
    insecure: bool = False

    @property
    def files(self) -> tuple[str | None, ...]:
        """The files that are read."""
        return self.ca, self.cert, self.key

    def context(self) -> ssl.SSLContext:
        """Read the files into a context for clients; TLS 1.2 at least.

        It takes milliseconds: many connections share one.

        Raises:
            TlsFileError: a file cannot be read, is not what it should be, or the key does not fit.
        """
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # So that sending is nothing but sending: one thread may, while another receives.
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
