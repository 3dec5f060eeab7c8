"""The verdict on a swarm, and the kinds of its failures."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from support.certificates import make_certificates
from support.misbehaving import Service, answers_bad_request, silent_after
from support.ports import free_port
from support.processes import (
    DEADLINE,
    EchoServerProcess,
    StartServer,
    environment,
)
from support.swarms import OWN, SHORT, locust, locust_command, processes


@pytest.mark.slow
@pytest.mark.parametrize("users", [[], ["EchoBlockUser"]], ids=["user", "block"])
def test_thresholds_decide_the_exit_code(
    echo_server: EchoServerProcess, users: list[str], tmp_path: Path
) -> None:
    host = ("--host", echo_server.url)
    kept = locust(*SHORT, *host, "--threshold", "p99<10s, errors<1", *users)
    assert kept.returncode == 0, kept.stderr.decode()
    assert b"threshold p99<10s kept: " in kept.stderr
    thresholds = ("--threshold", "p99<10s", "--threshold", "p50<1us")
    report = tmp_path / "report.html"
    crossed = locust(*SHORT, *host, *thresholds, "--html", str(report), *users)
    assert crossed.returncode == 99
    assert b"threshold p99<10s kept: " in crossed.stderr
    assert b"threshold p50<1us crossed: " in crossed.stderr
    told = re.sub(r"\s+|<[^>]*>", " ", report.read_text())
    assert re.search(r"threshold p99&lt;10s +[\d.]+ [mµ]?s +kept", told)
    assert re.search(r"threshold p50&lt;1us +[\d.]+ [mµ]?s +crossed", told)


@pytest.mark.slow
def test_injected_faults_are_counted_under_their_kinds(start_server: StartServer) -> None:
    faults = ("corrupt", "reset", "truncate", "close")
    url = start_server(*(f"--fault={fault}@2%" for fault in faults)).url
    for users in ([], ["EchoBlockUser", "--block-connections", "5"]):
        ended = locust(*SHORT, "--host", url, "--exit-code-on-error", "7", *users)
        assert ended.returncode == 7
        log = ended.stdout.decode() + ended.stderr.decode()
        for name in ("corrupt", "reset", "truncated", "closed"):
            assert f"TCP message: {name}" in log


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2], ids=["local", "workers"])
@pytest.mark.parametrize("users", [[], ["EchoBlockUser", "--block-connections", "5"]])
def test_what_came_instead_of_a_reply_is_shown(
    users: list[str], workers: int, tmp_path: Path
) -> None:
    """Also if it was a worker that received it."""
    report = tmp_path / "report.html"
    with Service(answers_bad_request) as proxy:
        ended = locust(
            *(*SHORT, "-t", "5s", "--host", f"tcp://{proxy.target}", "--html", str(report)),
            *(*(processes(workers) if workers else ()), *users),
        )
    assert ended.returncode == 1
    said = r"connection \d+, message \d+, at \d+\.\d+ s: (all|6\d of) 64 bytes differ.*"
    said += r"; received HTTP/1\.1 400 Bad Request\\r\\nServer"
    assert re.search(f"first corrupt: {said}", ended.stderr.decode()), ended.stderr.decode()
    assert re.search(f"first corrupt *{said}", re.sub(r"\s+|<[^>]*>", " ", report.read_text()))


@pytest.mark.slow
@pytest.mark.parametrize("users", [[], ["EchoBlockUser", "--block-connections", "5"]])
def test_the_share_of_errors_equals_that_of_locust(
    start_server: StartServer, users: list[str]
) -> None:
    url = start_server("--fault", "corrupt@50%").url
    ended = locust(*SHORT, "--host", url, "--json", "--threshold", "errors<1%", *users)
    (message,) = (one for one in json.loads(ended.stdout) if one["name"] == "message")
    share = message["num_failures"] / message["num_requests"]
    assert 0.4 < share < 0.6
    assert f"threshold errors<1% crossed: {share * 100:.4g} %" in ended.stderr.decode()


@pytest.mark.slow
def test_the_rate_includes_the_time_of_silence() -> None:
    with Service(silent_after(20)) as service:
        ended = locust(
            *("--headless", "-u", "1", "-t", "3s", "--host", service.target),
            *("--threshold", "messages_per_second>100"),
        )
    found = re.search(r"messages_per_second>100 crossed: ([\d.]+) a second", ended.stderr.decode())
    assert found
    # Twenty messages in the two or three seconds that locust says it ran.
    assert 3 <= float(found[1]) <= 12


@pytest.mark.slow
def test_a_missing_reply_has_the_same_kind_as_elsewhere(
    start_server: StartServer,
) -> None:
    url = start_server("--fault", "stall=10s@20%").url
    ended = locust(*SHORT, "--host", url, "--timeout", "1s")
    assert ended.returncode == 1
    assert "TCP message: no_reply" in ended.stderr.decode()
    assert "TCP message: timeout" not in ended.stderr.decode()


class _WebServer(ThreadingHTTPServer):
    request_queue_size = 1000


class _Page(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.slow
def test_failures_in_custom_tasks_are_in_the_table_and_not_in_the_log(
    unused_port: int, tmp_path: Path
) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN)
    ended = locust(*SHORT, "--host", f"tcp://127.0.0.1:{unused_port}", file=file)
    assert ended.returncode == 1
    assert "TCP connect: refused" in ended.stderr.decode()
    assert len(ended.stderr.decode().splitlines()) < 60


@contextmanager
def http_server() -> Iterator[int]:
    with _WebServer(("127.0.0.1", 0), _Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@contextmanager
def silent_server() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as listener:
        yield listener.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize("users", [[], ["EchoBlockUser"]], ids=["user", "block"])
def test_services_that_do_not_echo_are_recognised(unused_port: int, users: list[str]) -> None:
    # A silent service is recognised after twice the timeout.
    quick = ["-t", "4s", "--timeout", "200ms"]
    if users:
        quick += ["--block-connections", "3"]

    def log(port: int) -> str:
        ended = locust(*SHORT, *quick, "--host", f"tcp://127.0.0.1:{port}", *users)
        assert ended.returncode == 1
        lines = ended.stderr.decode().splitlines()
        assert len(lines) < 60, lines
        return ended.stderr.decode()

    assert "TCP connect: refused" in log(unused_port)
    with silent_server() as port:
        silence = log(port)
    assert "TCP message: no_reply" in silence
    assert "failed: no message came back" in silence
    # This many bytes contain a line feed, and are a bad request.
    quick += ["--payload-size", "4KiB"]
    with http_server() as port:
        assert re.search(r"TCP message: (foreign|truncated)", log(port))


@pytest.mark.slow
@pytest.mark.parametrize("users", [[], ["EchoBlockUser"]], ids=["user", "block"])
def test_messages_in_flight_at_the_end_are_awaited_and_counted(users: list[str]) -> None:
    """A swarm on a target that falls silent does not pass."""
    with Service(silent_after(20)) as service:
        options = ["--timeout", "4s", *(["--block-connections", "5"] if users else [])]
        ended = locust(
            *("--headless", "-u", "1", "-t", "2s", "--host", service.target, "--json"),
            *(*options, *users),
        )
    assert ended.returncode == 1
    entries = {entry["name"]: entry for entry in json.loads(ended.stdout)}
    message = entries["message"]
    silent = 5 if users else 1
    assert (message["num_requests"], message["num_failures"]) == (21 * silent, silent)
    assert f"failed: no_reply {silent}" in ended.stderr.decode()


@pytest.mark.slow
def test_errors_that_a_threshold_allows_do_not_fail_a_swarm(start_server: StartServer) -> None:
    server = start_server("--fault", "close@2%")
    host = ("--host", server.url)
    allowed = locust(*SHORT, *host, "--threshold", "errors<50%")
    log = allowed.stderr.decode()
    assert (allowed.returncode, "threshold errors<50% kept: " in log) == (0, True), log
    assert "message: closed" in log
    # The cause, which locust's tables do not show, is logged once per kind.
    assert log.count("the first closed of message: the server closed the connection") == 1
    assert locust(*SHORT, *host).returncode == 1


@pytest.mark.slow
def test_a_worker_that_cannot_run_its_users_fails_the_test(
    start_server: StartServer, tmp_path: Path
) -> None:
    """A file for TLS is missing in the folder of the worker."""
    certificates = make_certificates(tmp_path / "certificates")
    server = start_server("--listen", "tls://127.0.0.1:0", *certificates.options)
    port = ("--master-port", str(free_port()))
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    master = subprocess.Popen(
        [
            *(*locust_command(), *SHORT, "--master", "--expect-workers", "1"),
            *("--master-bind-port", port[1], "--host", server.url),
            *("--tls-ca", certificates.authority.name),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=certificates.authority.parent,
        env=environment(),
    )
    worker = locust("--worker", *port, cwd=folder)
    _, log = master.communicate(timeout=DEADLINE)
    reason = f"--tls-ca: {certificates.authority.name}: No such file or directory"
    assert worker.returncode == 2
    assert reason in worker.stderr.decode()
    assert master.returncode == 1
    assert f"failed: {reason}" in log.decode()
    assert "failed: no message came back" in log.decode()


BUSY = """
from echo_load.swarm.locustfile import EchoUser

class Busy(EchoUser):
    # What locust notes where a process uses over 90 % of a processor, which takes it a while.
    def on_start(self):
        self.environment.runner.cpu_warning_emitted = True
"""


@pytest.mark.slow
def test_a_swarm_that_is_the_bottleneck_reports_it(
    echo_server: EchoServerProcess, tmp_path: Path
) -> None:
    file = tmp_path / "busy.py"
    file.write_text(BUSY)
    busy = locust(*SHORT, "--host", echo_server.url, "Busy", file=file)
    assert b"generator-bound: a swarm process used over 90 % of a processor" in busy.stderr
    idle = locust(*SHORT, "--host", echo_server.url, "--wait", "100ms")
    assert b"generator-bound" not in idle.stderr
