"""Reconciliation of the generators' counts with the server's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from echo_load.results.reconciliation import Reconciliation
from support.certificates import make_certificates
from support.misbehaving import Service, in_pieces, silent
from support.processes import DEADLINE, LOAD, StartServer, loaded, run

ADMIN = ("--admin", "127.0.0.1:0")
LOADS = ("-c", "5", "-n", "500")


def reconciled(*arguments: str) -> tuple[int, Reconciliation, list[str]]:
    code, result = loaded("run", *arguments)
    assert result.reconciliation is not None
    return code, result.reconciliation, result.reasons


def balanced(found: Reconciliation, unit: str, count: int) -> None:
    assert (found.unit, found.balanced, found.differences) == (unit, True, [])
    assert found.sent == found.received_by_server == found.sent_by_server == found.received == count


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["hub", "threads"])
def test_a_local_server_is_reconciled_by_default(engine: str) -> None:
    code, found, reasons = reconciled("--engine", engine, *LOADS)
    balanced(found, "bytes", 500 * 64)
    assert (code, reasons) == (0, [])


@pytest.mark.slow
def test_warm_up_and_cut_off_messages_are_reconciled() -> None:
    code, found, _ = reconciled("-c", "50", "-d", "300ms", "--warmup", "100ms", "--processes", "2")
    balanced(found, "bytes", found.sent)
    assert code == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "unit"), [("udp", "datagrams"), ("tls", "bytes"), ("unix", "bytes")]
)
def test_a_server_with_a_named_admin_page_is_reconciled(
    start_server: StartServer, tmp_path: Path, scheme: str, unit: str
) -> None:
    where = f"unix://{tmp_path}/echo.sock" if scheme == "unix" else f"{scheme}://127.0.0.1:0"
    options: tuple[str, ...] = ()
    trust: tuple[str, ...] = ()
    if scheme == "tls":
        certificates = make_certificates(tmp_path)
        options, trust = certificates.options, ("--tls-ca", str(certificates.authority))
    server = start_server("--listen", where, *ADMIN, *options)
    page = f"{server.admin.removeprefix('http://')}/metrics"
    code, found, _ = reconciled(
        *(server.url, *trust, *LOADS, "--timeout", "10s", "--reconcile", page)
    )
    balanced(found, unit, 500 * (1 if unit == "datagrams" else 64))
    assert (code, found.admin) == (0, server.admin)


@pytest.mark.slow
def test_counts_of_several_workers_are_added(start_server: StartServer) -> None:
    server = start_server("--workers", "2", *ADMIN)
    # Earlier messages do not count.
    loaded("run", server.url, *LOADS)
    code, found, _ = reconciled(server.url, *LOADS, "--reconcile", server.admin)
    balanced(found, "bytes", 500 * 64)
    assert code == 0


@pytest.mark.slow
def test_truncated_replies_are_explained(start_server: StartServer) -> None:
    server = start_server("--fault", "truncate@5%", *ADMIN)
    code, found, reasons = reconciled(server.url, *LOADS, "--reconcile", server.admin)
    strikes = server.metric("faults_injected_total", kind="truncate")
    assert not found.balanced
    assert found.sent == found.received_by_server == 500 * 64
    assert found.sent_by_server == found.received < found.sent
    assert found.differences == [
        f"the server sent back {found.sent - found.received:,} bytes fewer than it received "
        f"({strikes:.0f} truncate injected, {strikes:.0f} connections closed by fault_injected)"
    ]
    assert code == 1
    assert reasons[-1:] == found.differences


@pytest.mark.slow
def test_dropped_datagrams_are_explained(start_server: StartServer) -> None:
    server = start_server("--listen", "udp://127.0.0.1:0", "--fault", "drop@5%", *ADMIN)
    code, found, _ = reconciled(
        *(server.url, "-c", "20", "-n", "200", "--timeout", "2s", "--reconcile", server.admin)
    )
    drops = server.metric("faults_injected_total", kind="drop")
    assert (found.sent, found.received_by_server) == (200, 200)
    assert found.sent_by_server == found.received == 200 - drops
    assert found.differences == [
        f"the server sent back {drops:.0f} datagrams fewer than it received "
        f"({drops:.0f} drop injected)"
    ]
    assert code == 1


@pytest.mark.slow
def test_counters_of_another_server_do_not_balance(start_server: StartServer) -> None:
    tested, named = start_server(), start_server(*ADMIN)
    code, found, _ = reconciled(tested.url, *LOADS, "--reconcile", named.admin)
    assert code == 1
    assert found.differences == [
        "32,000 bytes were sent that the server did not receive",
        "32,000 bytes came back that the server did not send: the path duplicates or adds data",
    ]


@pytest.mark.slow
def test_traffic_of_another_client_is_noticed(start_server: StartServer) -> None:
    """Another client uses the server during the test."""
    server = start_server(*ADMIN)
    with server.connect() as other:

        def talk(connection: object, over: threading.Event) -> None:
            other.sendall(b"x" * 1000)
            silent(connection, over)  # type: ignore[arg-type]

        with Service(talk) as service:
            code, found, _ = reconciled(
                *(server.url, service.target, "-c", "2", "-n", "2", "--timeout", "2s"),
                *("--no-reconnect", "--reconcile", server.admin),
            )
    assert code == 1
    # One message of 64 bytes went to another service, and the other client sent 1000 bytes.
    assert (found.sent, found.received_by_server) == (128, 1064)
    assert found.differences[0].startswith("the server received 936 bytes more than were sent")


@contextmanager
def web_page(content: bytes, status: int = 200) -> Iterator[str]:
    """Serve the same page at every path."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        serving = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01))
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            serving.join(DEADLINE)


def refused(page: str, target: str = "127.0.0.1:9") -> str:
    """Return the error for an unusable admin page, which is found before the test."""
    result = run([*LOAD, "run", target, "-n", "1", "--reconcile", page])
    assert result.returncode == 1
    assert not result.stdout
    (line,) = result.stderr.decode().splitlines()
    return line


def test_an_unreachable_admin_page_is_refused(unused_port: int) -> None:
    page = f"http://127.0.0.1:{unused_port}"
    assert refused(page) == (
        f"echo-load: error: cannot read {page}/metrics: [Errno 111] Connection refused"
    )


@pytest.mark.parametrize(
    ("content", "status", "expected"),
    [
        (b"<html><body>Welcome!</body></html>", 200, "is not the metrics page of an echo-server"),
        (b"\xff\xfe\x00", 200, "cannot read"),
        (b"# nothing\n", 200, "has no counters of an echo-server"),
        (b"process_cpu_seconds_total 5\n", 200, "has no counters of an echo-server"),
        (b"", 404, "Not Found"),
    ],
)
def test_a_page_of_another_service_is_refused(content: bytes, status: int, expected: str) -> None:
    with web_page(content, status) as page:
        line = refused(page)
    assert expected in line
    assert f"{page}/metrics" in line


def test_a_service_without_http_is_refused() -> None:
    with Service(in_pieces) as service:
        assert f"cannot read http://{service.target}/metrics: " in refused(service.target)
