"""The echo client: a blocking connection, an interactive prompt and a pipe."""

from echo_core.lazy import attributes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from echo_client.connection import EchoConnection, resolve
    from echo_client.errors import ClientError
    from echo_client.tls import TlsOptions

__all__ = ["ClientError", "EchoConnection", "TlsOptions", "resolve"]

__getattr__ = attributes(
    __name__,
    {
        "ClientError": "errors",
        "EchoConnection": "connection",
        "TlsOptions": "tls",
        "resolve": "connection",
    },
)
