"""The echo client: a blocking connection, an interactive prompt and a pipe."""

from echo_client.connection import EchoConnection, resolve
from echo_client.errors import ClientError
from echo_client.tls import TlsOptions

__all__ = ["ClientError", "EchoConnection", "TlsOptions", "resolve"]
