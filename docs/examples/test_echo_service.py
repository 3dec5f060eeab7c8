"""A test suite that puts load on a service: is every reply right, and does it come in time?

pytest docs/examples/test_echo_service.py
"""

import socketserver
import threading
from collections.abc import Iterator

import pytest

from echo_load import Plan, run


class Echo(socketserver.BaseRequestHandler):
    """A connection to the service under test, which stands here for your own."""

    def handle(self) -> None:
        """Send back what comes."""
        while data := self.request.recv(65536):
            self.request.sendall(data)


class Service(socketserver.ThreadingTCPServer):
    """The service under test."""

    daemon_threads = True
    request_queue_size = 128


@pytest.fixture
def service() -> Iterator[str]:
    """The URL of a running service."""
    with Service(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"tcp://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("size", [1, "1-1000", "64KiB"])
def test_every_reply_is_right(service: str, size: int | str) -> None:
    """Fails if a reply differs, is late or missing, or if a connection is lost."""
    result = run(Plan(targets=service, connections=20, messages=1000, payload_size=size))
    assert result.passed, result


def test_replies_come_in_time(service: str) -> None:
    """Fails also if one of a hundred replies takes longer than a second."""
    plan = Plan(targets=service, connections=10, rate=200, duration="2s", thresholds="p99<1s")
    result = run(plan)
    assert result.passed, result
    assert result.totals.messages == 400
