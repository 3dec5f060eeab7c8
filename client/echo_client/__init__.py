"""The echo client: a blocking connection, an interactive prompt and a pipe."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from echo_client.connection import EchoConnection, resolve
    from echo_client.errors import ClientError
    from echo_client.tls import TlsOptions

__all__ = ["ClientError", "EchoConnection", "TlsOptions", "resolve"]

_MODULES = {
    "ClientError": "errors",
    "EchoConnection": "connection",
    "TlsOptions": "tls",
    "resolve": "connection",
}


def __getattr__(name: str) -> object:
    """Import what is asked for when it is: a program has to be ready for signals before."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
