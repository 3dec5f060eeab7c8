"""A client's TLS options.

`ssl` is imported when a context is made: this module may be imported before gevent patches the
process, and `ssl` may not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from echo_client.errors import TlsOptionsError

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
            TlsOptionsError: a file cannot be read, is not what it should be, or the key does not
                fit.
        """
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # So that sending is nothing but sending: one thread may, while another receives.
        context.options |= ssl.OP_NO_RENEGOTIATION
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        self._load_authorities(context)
        self._load_certificate(context)
        return context

    def _load_authorities(self, context: ssl.SSLContext) -> None:
        import ssl

        if self.ca is None:
            context.load_default_certs()
            return
        _check_readable("--tls-ca", self.ca)
        try:
            context.load_verify_locations(self.ca)
        except ssl.SSLError as error:
            raise TlsOptionsError(
                f"--tls-ca: {self.ca} holds no certificate in PEM form"
            ) from error

    def _load_certificate(self, context: ssl.SSLContext) -> None:
        import ssl

        if self.cert is None:
            if self.key is not None:
                raise TlsOptionsError(f"--tls-key: {self.key} needs --tls-cert FILE")
            return
        key_option, key = ("--tls-key", self.key) if self.key else ("--tls-cert", self.cert)

        def refuse_to_ask() -> str:
            raise TlsOptionsError(
                f"{key_option}: {key} is encrypted; write it without a passphrase"
            )

        _check_readable("--tls-cert", self.cert)
        _check_readable(key_option, key)
        try:
            context.load_cert_chain(self.cert, self.key, refuse_to_ask)
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                said = f"{key_option}: {key} is not the key of {self.cert}"
            elif b"-----BEGIN CERTIFICATE-----" not in Path(self.cert).read_bytes():
                said = f"--tls-cert: {self.cert} holds no certificate in PEM form"
            elif b"PRIVATE KEY-----" not in Path(key).read_bytes():
                said = f"{key_option}: {key} holds no key in PEM form"
            else:
                said = f"--tls-cert: {self.cert} and {key}: {error.reason or error}"
            raise TlsOptionsError(said) from error


def _check_readable(option: str, path: str) -> None:
    try:
        Path(path).read_bytes()
    except OSError as error:
        raise TlsOptionsError(f"{option}: {path}: {error.strerror}") from error
