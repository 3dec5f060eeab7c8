"""Test an asyncio service from the process, and the event loop, that it runs in.

python docs/examples/asyncio_service.py
"""

import asyncio
from contextlib import suppress

from echo_load import Interruption, Plan, Result, run


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve a connection."""
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def run_test(plan: Plan) -> Result:
    """Run a test in a thread, while the event loop goes on; end it if this task is cancelled."""
    stop = Interruption()
    try:
        return await asyncio.to_thread(run, plan, interruption=stop)
    finally:
        stop.requested = True


async def main() -> None:
    """Start the service, and test it."""
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with server:
        plan = Plan(targets=f"tcp://{host}:{port}", connections=10, rate=500, duration="2s")
        print(await run_test(plan))


if __name__ == "__main__":
    asyncio.run(main())
