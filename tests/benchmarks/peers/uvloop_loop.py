"""A closed loop on uvloop: an asyncio Protocol per connection; replies are counted, not checked.

    python uvloop_loop.py PORT CONNECTIONS SIZE WARMUP_SECONDS SECONDS

The next message is sent when as many bytes have arrived as the previous one had. It prints one JSON
object: the messages and seconds measured.
"""

import asyncio
import json
import socket
import sys
import time
from typing import cast

import uvloop


class ClosedLoop(asyncio.Protocol):
    def __init__(self, message: bytes) -> None:
        self.messages = 0
        self.message = message
        self.missing = 0  # bytes of the reply still to come

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.write = transport.write

    def connection_lost(self, _error: Exception | None) -> None:
        sys.exit("uvloop_loop: the server closed a connection")

    def data_received(self, data: bytes) -> None:
        self.missing -= len(data)
        if self.missing == 0:
            self.messages += 1
            self.send_message()

    def send_message(self) -> None:
        self.missing = len(self.message)
        self.write(self.message)


async def main(
    port: int, connections: int, size: int, warmup_seconds: float, seconds: float
) -> None:
    loop = asyncio.get_running_loop()
    message = b"x" * size
    protocols = []
    for _ in range(connections):
        _transport, protocol = await loop.create_connection(
            lambda: ClosedLoop(message), "127.0.0.1", port
        )
        protocols.append(protocol)
    for protocol in protocols:
        protocol.send_message()

    await asyncio.sleep(warmup_seconds)
    before, begin = sum(protocol.messages for protocol in protocols), time.monotonic()
    await asyncio.sleep(seconds)
    after, end = sum(protocol.messages for protocol in protocols), time.monotonic()
    print(json.dumps({"messages": after - before, "seconds": end - begin}), flush=True)


if __name__ == "__main__":
    _, port, connections, size, warmup_seconds, seconds = sys.argv
    uvloop.run(main(int(port), int(connections), int(size), float(warmup_seconds), float(seconds)))
