"""Services over UDP that answer, or not, as a test says."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from support.processes import DEADLINE


@contextmanager
def datagram_service(answer: Callable[[bytes, object], bytes | None]) -> Iterator[str]:
    """Answer datagrams; yield the URL.

    Args:
        answer: returns the reply to a datagram of a peer; None for none.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service:
        service.bind(("127.0.0.1", 0))

        def serve() -> None:
            while True:
                data, peer = service.recvfrom(65536)
                if data == b"end":
                    return
                if (reply := answer(data, peer)) is not None:
                    service.sendto(reply, peer)

        thread = threading.Thread(target=serve)
        thread.start()
        host, port = service.getsockname()
        try:
            yield f"udp://{host}:{port}"
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                last.sendto(b"end", (host, port))
            thread.join(DEADLINE)
