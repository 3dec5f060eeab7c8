"""Certificates for a test."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Certificates:
    """The PEM files that a server and its clients need.

    Attributes:
        authority: certificate of the authority that has issued both certificates.
        cert: certificate of the server.
        key: private key of the server.
        client: certificate and private key of the client.
    """

    authority: Path
    cert: Path
    key: Path
    client: Path

    @property
    def options(self) -> tuple[str, ...]:
        """The TLS options of `echo-server`."""
        return ("--tls-cert", str(self.cert), "--tls-key", str(self.key))

    def client_context(self, *, with_certificate: bool = False) -> ssl.SSLContext:
        """Return a client's TLS context that trusts the authority."""
        context = ssl.create_default_context(cafile=str(self.authority))
        if with_certificate:
            context.load_cert_chain(self.client)
        return context


def make_certificates(directory: Path) -> Certificates:
    """Create an authority and its certificates in a directory."""
    directory.mkdir(exist_ok=True)
    authority = trustme.CA()
    server = authority.issue_cert("localhost", "127.0.0.1", "::1")
    files = Certificates(
        authority=directory / "authority.pem",
        cert=directory / "server.pem",
        key=directory / "server.key",
        client=directory / "client.pem",
    )
    authority.cert_pem.write_to_path(str(files.authority))
    server.private_key_pem.write_to_path(str(files.key))
    for number, blob in enumerate(server.cert_chain_pems):
        blob.write_to_path(str(files.cert), append=number > 0)
    client = authority.issue_cert("client@example.org")
    client.private_key_and_cert_chain_pem.write_to_path(str(files.client))
    return files
