"""An echo server with a greenlet for each connection."""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

from typing import Any  # noqa: E402  # only what is imported after patching waits as greenlets do

from gevent.server import StreamServer  # noqa: E402

from echo_load.lab.models.listening import BACKLOG, announce, echo  # noqa: E402


def handle(connection: Any, _address: object) -> None:
    """Echo a connection, in a greenlet of its own."""
    echo(connection)


def serve() -> None:
    """Serve connections, a greenlet each."""
    server = StreamServer(("127.0.0.1", 0), handle, backlog=BACKLOG)
    server.start()
    announce(server.socket)
    server.serve_forever()


if __name__ == "__main__":
    serve()
