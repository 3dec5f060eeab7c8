"""An echo server with an asyncio task for each connection."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from echo_load.lab.models.listening import BACKLOG, RECEIVE_BYTES, announce


async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Echo a connection, in a task of its own."""
    with suppress(ConnectionError):
        while data := await reader.read(RECEIVE_BYTES):
            writer.write(data)
            # Waits while the client does not read: what it has not read yet is bounded.
            await writer.drain()
        writer.close()
        await writer.wait_closed()


async def serve() -> None:
    """Serve connections, a task each."""
    server = await asyncio.start_server(handle, "127.0.0.1", 0, backlog=BACKLOG)
    announce(server.sockets[0])
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
