"""Loading of PEM files with certificates, keys and certificate authorities.

`ssl` is imported only when a file is loaded: this module may be imported before gevent patches the
process, but `ssl` must not be.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from echo_core.errors import EchoswarmError, ExitCode

if TYPE_CHECKING:
    import ssl


class TlsFileError(EchoswarmError):
    """A file with certificates or a key cannot be read or used for TLS."""

    exit_code = ExitCode.USAGE


def load_authorities(context: ssl.SSLContext, option: str, path: str) -> None:
    """Trust the certificate authorities in a file.

    Args:
        context: the TLS context.
        option: the option that named the file, for error messages.
        path: the file.

    Raises:
        TlsFileError: the file cannot be read, or contains no certificate.
    """
    import ssl

    _read(option, path)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise TlsFileError(f"{option}: {path} contains no PEM certificate") from error


def load_certificate(context: ssl.SSLContext, cert: str, key: str | None) -> None:
    """Load a certificate and its key into a TLS context.

    Args:
        context: the TLS context.
        cert: the file of `--tls-cert`: the certificate and its chain.
        key: the file of `--tls-key`; None if the key is in `cert`.

    Raises:
        TlsFileError: a file cannot be read, lacks the certificate or key, is encrypted, or the key
            does not belong to the certificate.
    """
    import ssl

    key_option, key_path = ("--tls-key", key) if key else ("--tls-cert", cert)

    def refuse_passphrase() -> str:
        raise TlsFileError(f"{key_option}: {key_path} is encrypted; use a key without a passphrase")

    certificates, keys = _read("--tls-cert", cert), _read(key_option, key_path)
    try:
        context.load_cert_chain(cert, key, refuse_passphrase)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            message = f"{key_option}: {key_path} is not the private key of {cert}"
        elif b"-----BEGIN CERTIFICATE-----" not in certificates:
            message = f"--tls-cert: {cert} contains no PEM certificate"
        elif b"PRIVATE KEY-----" not in keys:
            message = f"{key_option}: {key_path} contains no PEM private key"
        else:
            message = f"--tls-cert: {cert} and {key_path}: {error.reason or error}"
        raise TlsFileError(message) from error


def _read(option: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise TlsFileError(f"{option}: {path}: {error.strerror}") from error
