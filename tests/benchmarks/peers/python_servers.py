"""Echo servers in Python with which echo-server is compared.

    python python_servers.py KIND [CERT KEY]      KIND: uvloop, greenlet, tutorial, asyncio, threads

With a certificate and its key, uvloop and asyncio use TLS.

Each server listens on a free port of 127.0.0.1 and prints `listening tcp://127.0.0.1:PORT`.
"""

import asyncio
import socket
import ssl
import sys
import threading
from typing import cast


def announce(port: int) -> None:
    print(f"listening tcp://127.0.0.1:{port}", flush=True)


def greenlet() -> None:
    """Serve with gevent's StreamServer, which has a greenlet per connection."""
    from gevent import monkey

    monkey.patch_all()
    from gevent.server import StreamServer

    def echo(connection: socket.socket, _address: object) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := connection.recv(65536):
            connection.sendall(data)

    server = StreamServer(("127.0.0.1", 0), echo, backlog=4096)
    server.start()
    announce(server.socket.getsockname()[1])
    server.serve_forever()


def tutorial() -> None:
    """Serve with an accept loop and a greenlet per connection on gevent's sockets, unpatched."""
    import gevent
    from gevent import socket as gevent_socket

    def echo(connection: gevent_socket.socket) -> None:
        while data := connection.recv(1024):
            connection.send(data)
        connection.close()

    listener = gevent_socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(4096)
    announce(listener.getsockname()[1])
    while True:
        connection, _ = listener.accept()
        gevent.spawn(echo, connection)


def threads() -> None:
    """Serve with an accept loop and a thread per connection on blocking sockets."""

    def echo(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection:
            while data := connection.recv(65536):
                connection.sendall(data)

    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    announce(listener.getsockname()[1])
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=echo, args=(connection,), daemon=True).start()


class EchoProtocol(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.write = transport.write

    def data_received(self, data: bytes) -> None:
        self.write(data)


async def serve_protocol() -> None:
    loop = asyncio.get_running_loop()
    context = None
    if sys.argv[2:]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*sys.argv[2:])
    server = await loop.create_server(EchoProtocol, "127.0.0.1", 0, backlog=4096, ssl=context)
    announce(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def uvloop() -> None:
    """Serve with asyncio's Protocol on uvloop's event loop."""
    import uvloop as loop

    loop.run(serve_protocol())


def asyncio_protocol() -> None:
    """Serve with asyncio's Protocol on the standard library's event loop."""
    asyncio.run(serve_protocol())


if __name__ == "__main__":
    kinds = {
        "uvloop": uvloop,
        "greenlet": greenlet,
        "tutorial": tutorial,
        "asyncio": asyncio_protocol,
        "threads": threads,
    }
    kinds[sys.argv[1]]()
