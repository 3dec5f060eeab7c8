"""The HTTP server of the pages for monitors: few connections, and none for long."""

from __future__ import annotations

import http.client
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from email.message import Message
from http import HTTPStatus

import pytest
import structlog
from structlog.testing import LogCapture

from echo_core.http_server import HttpServer, Response
from support.processes import DEADLINE, receive_to_end, reset, until

LARGE = bytes(16 << 20)
REQUEST = b"GET /small HTTP/1.1\r\n\r\n"


def pages(path: str, headers: Message) -> Response:
    match path:
        case "/small":
            return Response.of_text(HTTPStatus.OK, headers.get("X-Name", "small"))
        case "/large":
            return Response(HTTPStatus.OK, LARGE, "application/octet-stream")
        case "/broken":
            raise ValueError("a page that fails")
        case _:
            return Response.of_text(HTTPStatus.NOT_FOUND, "there is /small")


class Served:
    """A server, where it is, and what it has logged."""

    def __init__(self, *, most: int, seconds: float) -> None:
        captured = LogCapture()
        self.logged = captured.entries
        listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = listener.getsockname()[1]
        logger = structlog.wrap_logger(
            structlog.PrintLogger(),
            processors=[captured],
            wrapper_class=structlog.make_filtering_bound_logger(0),
        )
        self.server = HttpServer(listener, pages, logger, max_connections=most, seconds=seconds)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE)

    def exchange(self, request: bytes) -> tuple[bytes, bytes]:
        """Head and content of the answer to these bytes."""
        with self.connect() as connection:
            connection.sendall(request)
            head, _, content = receive_to_end(connection).partition(b"\r\n\r\n")
            return head, content

    def levels(self) -> set[str]:
        return {entry["log_level"] for entry in self.logged}


@contextmanager
def serving(*, most: int = 10, seconds: float = DEADLINE) -> Iterator[Served]:
    served = Served(most=most, seconds=seconds)
    try:
        yield served
    finally:
        served.server.close()


@pytest.fixture
def served() -> Iterator[Served]:
    with serving() as served:
        yield served


@pytest.mark.parametrize("path", ["/small", "/large", "/nothing", "/broken", "/small?query"])
def test_head_is_answered_like_get_without_the_content(served: Served, path: str) -> None:
    answers = []
    for method in ("GET", "HEAD"):
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=DEADLINE)
        connection.request(method, path)
        answer = connection.getresponse()
        answers.append((answer.status, answer.headers["Content-Type"], answer.read()))
        size = int(answer.headers["Content-Length"])
        connection.close()
        assert size == len(answers[0][2])
    assert answers[0][:2] == answers[1][:2]
    assert answers[1][2] == b""
    # Also not behind the head, where a client would not look.
    assert served.exchange(f"HEAD {path} HTTP/1.1\r\n\r\n".encode())[1] == b""


def test_header_fields_are_passed_to_the_page(served: Served) -> None:
    head, content = served.exchange(b"GET /small HTTP/1.0\r\nx-name:  another\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200 OK\r\n")
    assert content == b"another\n"


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
def test_the_thread_has_a_low_priority(served: Served) -> None:
    assert served.exchange(REQUEST)[1] == b"small\n"
    (thread,) = [one for one in threading.enumerate() if one.name == "http"]
    assert thread.native_id is not None
    nice = os.getpriority(os.PRIO_PROCESS, thread.native_id)
    assert nice > os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_a_request_may_arrive_in_pieces(served: Served) -> None:
    with served.connect() as connection:
        for byte in REQUEST:
            connection.sendall(bytes([byte]))
        assert receive_to_end(connection).endswith(b"\r\n\r\nsmall\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /small HTTP/1.1\r\n\r\n", b"405 Method Not Allowed"),
        (b"BREW /small HTTP/1.1\r\n\r\n", b"405 Method Not Allowed"),
        (b"\0\1\2\r\n\r\n", b"400"),
        (b"GET /small HTTP/9.9\r\n\r\n", b"505"),
        (b"GET /small HTTP/1.1\r\nX-Name: " + b"x" * 20_000, b"431"),
    ],
)
def test_a_malformed_request_is_answered_with_an_error(
    served: Served, request_: bytes, status: bytes
) -> None:
    head, _ = served.exchange(request_)
    assert head.startswith(b"HTTP/1.0 " + status), head
    assert (b"\r\nAllow: GET, HEAD" in head) == status.startswith(b"405")
    assert served.exchange(REQUEST)[1] == b"small\n"
    assert served.levels() == {"debug"}


def test_a_request_with_a_body_is_answered(served: Served) -> None:
    body = bytes(100_000)
    head, content = served.exchange(
        b"POST /small HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    assert head.startswith(b"HTTP/1.0 405 ")
    assert content == b"GET and HEAD only\n"


def test_beyond_the_limit_the_oldest_connection_is_closed() -> None:
    with serving(most=3) as served, ExitStack() as stack:
        waiting = [stack.enter_context(served.connect()) for _ in range(3)]
        assert served.exchange(REQUEST)[1] == b"small\n"
        assert waiting[0].recv(1) == b""
        for connection in waiting[1:]:
            connection.sendall(REQUEST)
            assert receive_to_end(connection).endswith(b"small\n")


def test_a_connection_without_a_request_is_closed_before_one_being_answered() -> None:
    with serving(most=2) as served, served.connect() as reading, served.connect() as waiting:
        reading.sendall(b"GET /large HTTP/1.1\r\n\r\n")
        assert reading.recv(1, socket.MSG_PEEK) == b"H"
        assert served.exchange(REQUEST)[1] == b"small\n"
        assert waiting.recv(1) == b""
        assert receive_to_end(reading).endswith(LARGE)


def test_silent_clients_do_not_keep_others_out() -> None:
    with serving(most=5) as served, ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(served.connect())
        assert served.exchange(REQUEST)[1] == b"small\n"


def test_the_timeout_covers_the_whole_request() -> None:
    """A byte now and then does not make it longer."""
    with serving(seconds=0.2) as served, served.connect() as slow:
        slow.setblocking(False)

        def is_closed() -> bool:
            try:
                slow.send(b"G")
                return slow.recv(1) == b""
            except BlockingIOError:
                return False
            except (ConnectionResetError, BrokenPipeError):
                return True

        until(is_closed, "the request to be given up")
        assert served.exchange(REQUEST)[1] == b"small\n"


def test_the_timeout_covers_the_answer_too() -> None:
    with serving(seconds=0.2) as served, served.connect() as slow:
        slow.sendall(b"GET /large HTTP/1.1\r\n\r\n")
        until(
            lambda: any("timed out" in entry["event"] for entry in served.logged),
            "the answer to be given up",
        )
        with suppress(ConnectionResetError):
            assert len(receive_to_end(slow)) < len(LARGE)


def test_an_error_in_a_page_is_logged_with_its_traceback(served: Served) -> None:
    head, content = served.exchange(b"GET /broken HTTP/1.1\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 500 ")
    assert content == b"Internal Server Error\n"
    (entry,) = [entry for entry in served.logged if entry["log_level"] == "error"]
    assert (entry["event"], entry["path"], entry["exc_info"]) == ("page failed", "/broken", True)


def test_a_client_that_disconnects_is_not_logged_as_an_error(served: Served) -> None:
    for sent in (b"", b"GET /sma", b"GET /large HTTP/1.1\r\n\r\n"):
        leaving = served.connect()
        leaving.sendall(sent)
        reset(leaving)
    until(
        lambda: any(entry["event"] == "http client left" for entry in served.logged),
        "the server to notice",
    )
    assert served.exchange(REQUEST)[1] == b"small\n"
    assert served.levels() == {"debug"}


def test_an_answer_being_sent_at_close_is_completed() -> None:
    with serving() as served, served.connect() as reading:
        reading.sendall(b"GET /large HTTP/1.1\r\n\r\n")
        assert reading.recv(1, socket.MSG_PEEK) == b"H"
        closing = threading.Thread(target=served.server.close)
        served.server.close = closing.join  # type: ignore[method-assign]
        closing.start()
        assert receive_to_end(reading).endswith(LARGE)
        closing.join(DEADLINE)
        assert not closing.is_alive()
        with pytest.raises(ConnectionRefusedError):
            served.connect()
