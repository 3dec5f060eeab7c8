"""Locust with echo users: real locusts, real servers."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from echo_load.swarm.options import OPTIONS
from support.certificates import make_certificates
from support.misbehaving import Service, silent_after
from support.processes import (
    DEADLINE,
    LOAD,
    EchoServerProcess,
    StartServer,
    environment,
    run,
    until,
)
from support.swarms import LOCUSTFILE, Swarm, free_port, locust_command

SHORT = ("--headless", "-u", "5", "-r", "100", "-t", "2s")


def locust(
    *arguments: str, file: Path = LOCUSTFILE, cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    """A locust to its end."""
    ended = subprocess.run(
        [*locust_command(file), *arguments],
        capture_output=True,
        timeout=DEADLINE,
        check=False,
        env=environment(),
        cwd=cwd,
    )
    assert b"Traceback" not in ended.stderr, ended.stderr.decode()
    assert b"MonkeyPatchWarning" not in ended.stderr
    return ended


def rows_of(path: Path) -> dict[tuple[str, str], dict[str, str]]:
    with path.open(newline="") as file:
        return {(row["method"], row["name"]): row for row in csv.DictReader(file)}


def test_users_echo_without_a_failure_and_in_microseconds(
    echo_server: EchoServerProcess, tmp_path: Path
) -> None:
    ended = locust(*SHORT, "--host", echo_server.url, "--csv", "out", "--json", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr.decode()
    entries = {entry["name"]: entry for entry in json.loads(ended.stdout)}
    assert set(entries) == {"connect", "message", "close"}
    assert entries["connect"]["num_requests"] == entries["close"]["num_requests"] == 5
    message = entries["message"]
    assert message["num_failures"] == 0
    # Locust's own buckets are finer than milliseconds.
    assert any(0 < float(key) < 1 for key in message["response_times"])
    rows = rows_of(tmp_path / "out_microseconds.csv")
    row = rows["TCP", "message"]
    assert int(row["count"]) == message["num_requests"]
    assert 0 < float(row["p50_us"]) <= float(row["p99_us"]) <= float(row["max_us"])
    said = ended.stderr.decode()
    assert "response times in microseconds" in said
    assert re.search(r"^TCP +message +[\d,]+ ", said, re.MULTILINE)


def test_what_users_sent_is_what_the_server_counted(
    start_server: StartServer, tmp_path: Path
) -> None:
    for users in ([], ["EchoBlockUser", "--block-connections", "7"]):
        server = start_server("--admin", "127.0.0.1:0")
        admin = server.admin
        ended = locust(
            *(*SHORT, "--host", server.url, "--csv", "out", "--json", "--payload-size", "100"),
            *users,
            cwd=tmp_path,
        )
        assert ended.returncode == 0, ended.stderr.decode()
        assert admin
        rows = rows_of(tmp_path / "out_microseconds.csv")
        messages = int(rows["TCP", "message"]["count"])
        connections = int(rows["TCP", "connect"]["count"])
        assert connections == (5 * 7 if users else 5)
        received = server.metric("received_bytes_total")
        # What was under way when locust ended its users was not answered any more.
        assert 0 <= received - 100 * messages <= 100 * connections
        entries = {entry["name"]: entry for entry in json.loads(ended.stdout)}
        assert entries["message"]["num_requests"] == messages
        assert entries["message"]["num_failures"] == 0
        assert entries["message"]["microseconds"]["count"] == messages


def test_a_block_keeps_to_a_rate(echo_server: EchoServerProcess) -> None:
    ended = locust(
        *("--headless", "-u", "2", "-t", "2s", "--host", echo_server.url, "--json"),
        *("EchoBlockUser", "--rate", "200", "--block-connections", "10"),
    )
    assert ended.returncode == 0, ended.stderr.decode()
    (entry,) = (one for one in json.loads(ended.stdout) if one["name"] == "message")
    assert 0 < entry["num_requests"] <= 2 * 200 * 2


@pytest.mark.parametrize("users", [[], ["EchoBlockUser"]], ids=["user", "block"])
def test_thresholds_decide_the_exit_code(echo_server: EchoServerProcess, users: list[str]) -> None:
    host = ("--host", echo_server.url)
    kept = locust(*SHORT, *host, "--threshold", "p99<10s, errors<1", *users)
    assert kept.returncode == 0, kept.stderr.decode()
    assert b"threshold p99<10s kept: " in kept.stderr
    crossed = locust(*(*SHORT, *host, "--threshold", "p99<10s", "--threshold", "p50<1us", *users))
    assert crossed.returncode == 99
    assert b"threshold p99<10s kept: " in crossed.stderr
    assert b"threshold p50<1us crossed: " in crossed.stderr


def test_faults_have_their_names(start_server: StartServer) -> None:
    faults = ("corrupt", "reset", "truncate", "close")
    url = start_server(*(f"--fault={fault}@2%" for fault in faults)).url
    for users in ([], ["EchoBlockUser", "--block-connections", "5"]):
        ended = locust(*SHORT, "--host", url, "--exit-code-on-error", "7", *users)
        assert ended.returncode == 7
        said = ended.stdout.decode() + ended.stderr.decode()
        for name in ("corrupt", "reset", "truncated", "closed"):
            assert f"TCP message: {name}" in said


@pytest.mark.parametrize("users", [[], ["EchoBlockUser", "--block-connections", "5"]])
def test_the_share_of_errors_is_locusts(start_server: StartServer, users: list[str]) -> None:
    url = start_server("--fault", "corrupt@50%").url
    ended = locust(*SHORT, "--host", url, "--json", "--threshold", "errors<1%", *users)
    (message,) = (one for one in json.loads(ended.stdout) if one["name"] == "message")
    share = message["num_failures"] / message["num_requests"]
    assert 0.4 < share < 0.6
    assert f"threshold errors<1% crossed: {share * 100:.4g} %" in ended.stderr.decode()


def test_the_rate_of_a_target_that_falls_silent() -> None:
    with Service(silent_after(20)) as service:
        ended = locust(
            *("--headless", "-u", "1", "-t", "3s", "--host", service.target),
            *("--threshold", "messages_per_second>100"),
        )
    found = re.search(r"messages_per_second>100 crossed: ([\d.]+) a second", ended.stderr.decode())
    assert found
    # Twenty in the two or three seconds that locust says it has run.
    assert 5 <= float(found[1]) <= 12


def test_users_that_connect_at_once_do_not_measure_one_another(
    echo_server: EchoServerProcess, tmp_path: Path
) -> None:
    """Their messages wait for one another, and their connections are the kernel's work."""
    ended = locust(
        *("--headless", "-u", "200", "-r", "200", "-t", "2s", "--host", echo_server.url),
        *("--csv", "out"),
        cwd=tmp_path,
    )
    assert ended.returncode == 0, ended.stderr.decode()
    rows = rows_of(tmp_path / "out_microseconds.csv")
    assert int(rows["TCP", "connect"]["count"]) == 200
    assert float(rows["TCP", "connect"]["p50_us"]) < float(rows["TCP", "message"]["p50_us"])


def test_messages_of_all_sizes_come_back(echo_server: EchoServerProcess) -> None:
    """Small ones, those that need several reads, and those that need several writes."""
    ended = locust(
        *(*SHORT, "--host", echo_server.url, "--payload-size", "1-4MiB", "--json"),
    )
    assert ended.returncode == 0, ended.stderr.decode()
    (entry,) = (one for one in json.loads(ended.stdout) if one["name"] == "message")
    assert entry["num_requests"] > 10
    assert entry["total_content_length"] > 4 << 20


def test_a_reply_that_stays_away_has_the_name_that_it_has_everywhere(
    start_server: StartServer,
) -> None:
    url = start_server("--fault", "stall=10s@20%").url
    ended = locust(*SHORT, "--host", url, "--timeout", "100ms")
    assert ended.returncode == 1
    assert "TCP message: no_reply" in ended.stderr.decode()
    assert "TCP message: timeout" not in ended.stderr.decode()


class _WebServer(ThreadingHTTPServer):
    request_queue_size = 1000


class _Page(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_failures_in_tasks_of_ones_own_are_in_the_table_and_not_in_the_log(
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


@pytest.mark.parametrize("users", [[], ["EchoBlockUser"]], ids=["user", "block"])
def test_what_is_no_echo_service_is_named(unused_port: int, users: list[str]) -> None:
    # What says nothing is known to after twice the timeout.
    quick = ["-t", "4s", "--timeout", "200ms"]
    if users:
        quick += ["--block-connections", "3"]

    def said(port: int) -> str:
        ended = locust(*SHORT, *quick, "--host", f"tcp://127.0.0.1:{port}", *users)
        assert ended.returncode == 1
        lines = ended.stderr.decode().splitlines()
        assert len(lines) < 60, lines
        return ended.stderr.decode()

    assert "TCP connect: refused" in said(unused_port)
    with silent_server() as port:
        silence = said(port)
    assert "TCP message: no_reply" in silence
    assert "failed: not one message came back" in silence
    # So many bytes have a line feed among them, and are a bad request.
    quick += ["--payload-size", "4KiB"]
    with http_server() as port:
        assert re.search(r"TCP message: (foreign|truncated)", said(port))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--host", "nonsense:x"], "--host: 'nonsense:x': 'x' is not a port"),
        (["--host", "http://127.0.0.1:1"], "--host: "),
        ([], "--host is missing; write it as in --host tcp://HOST:50007"),
        (["--host", "h", "--payload-size", "x"], "--payload-size: 'x' is not a size"),
        (["--host", "h", "--wait", "3s-1s"], "--wait: '3s-1s' is no range of durations"),
        (["--host", "h", "--timeout", "0s"], "--timeout: '0s' is no time at all"),
        (["--host", "h", "--threshold", "p99"], "--threshold: 'p99' is not a threshold"),
        (
            ["--host", "h", "--threshold", "retransmits<1"],
            "--threshold: 'retransmits<1': a swarm does not measure retransmits",
        ),
        (["--host", "h", "--rate", "5"], "--rate is for EchoBlockUser, and none runs; name it"),
        (["--host", "h", "--block-connections", "5"], "--block-connections is for EchoBlockUser"),
        (["--host", "h", "--wait", "1s", "EchoBlockUser"], "--wait is for EchoUser, and none runs"),
        (["--host", "tls://h:1", "--tls-ca", "/nope"], "/nope"),
        (
            ["--host", "tls://h:1", "EchoBlockUser"],
            "EchoBlockUser does not speak tls, as tls://h:1 needs; use EchoUser",
        ),
        (["--host", "h", "--payload-size", "1TB"], "1000000000000"),
        (["--host", "h", "--stages", "x"], "--stages: 'x' is not a stage"),
        (["--host", "h", "--rate", "fast"], "--rate: 'fast' is not a rate"),
        (
            ["--host", "h", "--block-connections", "0"],
            "'0' is not a whole number from 1",
        ),
    ],
)
def test_bad_options_are_one_line(options: list[str], line: str) -> None:
    ended = locust(*SHORT, *options)
    assert ended.returncode == 2
    (error,) = [one for one in ended.stderr.decode().splitlines() if "error" in one.lower()]
    assert error.startswith("locust: error: ")
    assert line in error


def test_an_interrupt_ends_a_swarm_with_its_figures(
    echo_server: EchoServerProcess, tmp_path: Path
) -> None:
    """In the midst of requests, which are neither lost nor counted in part."""
    page = tmp_path / "report.html"
    command = [*LOAD, "swarm", echo_server.url, "--headless", "-u", "5", "-t", "60s"]
    swarm = subprocess.Popen(
        [*command, "--html", str(page)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment(),
        start_new_session=True,
    )
    assert swarm.stderr is not None
    while b"All users spawned" not in swarm.stderr.readline():
        pass
    os.killpg(swarm.pid, signal.SIGINT)
    _, said = swarm.communicate(timeout=DEADLINE)
    assert swarm.returncode == 0
    assert b"Traceback" not in said
    assert b"Shutting down (exit code 0)" in said
    assert page.stat().st_size > 10_000


def test_an_interrupt_while_workers_are_waited_for_ends_a_master() -> None:
    options = ["--master-bind-port", str(free_port()), "--host", "127.0.0.1:9"]
    master = subprocess.Popen(
        [*LOAD, "swarm", "--headless", "--master", "--expect-workers", "1", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment(),
        start_new_session=True,
    )
    assert master.stderr is not None
    while b"Waiting for workers" not in master.stderr.readline():
        pass
    os.killpg(master.pid, signal.SIGINT)
    _, said = master.communicate(timeout=DEADLINE)
    assert (master.returncode, b"Traceback" in said) == (130, False)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--web-port"], "--web-port: cannot serve the page on 127.0.0.1:{}: Address already in"),
        (["--headless", "--master", "--master-bind-port"], "Socket bind failure: Address already"),
    ],
)
def test_a_port_that_is_taken_is_one_line(options: list[str], line: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run([*LOAD, "swarm", "127.0.0.1:9", *options, str(port)])
    assert ended.returncode in {1, 2}
    said = ended.stderr.decode()
    (error,) = [one for one in said.splitlines() if "INFO" not in one]
    assert error.startswith(f"echo-load swarm: error: {line.format(port)}")


def test_stages_say_how_many_users_there_are(echo_server: EchoServerProcess) -> None:
    ended = locust("--headless", "--host", echo_server.url, "--stages", "3/1s,9/1s")
    assert ended.returncode == 0, ended.stderr.decode()
    assert re.findall(r'All users spawned: {"EchoUser": (\d+)}', ended.stderr.decode()) == [
        "3",
        "9",
    ]


def test_users_speak_tls_and_unix_sockets_too(start_server: StartServer, tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path / "certificates")
    server = start_server(
        *("--listen", "tls://127.0.0.1:0", "--listen", f"unix://{tmp_path}/echo.sock"),
        *(*certificates.options, "--tls-client-ca", str(certificates.authority)),
    )
    tls = [
        *("--host", server.url, "--tls-ca", str(certificates.authority)),
        *("--tls-client-cert", str(certificates.client)),
    ]
    for method, host in (("TLS", tls), ("UNIX", ["--host", f"unix://{tmp_path}/echo.sock"])):
        ended = locust(*SHORT, *host, "--json")
        assert ended.returncode == 0, ended.stderr.decode()
        entries = {(entry["method"], entry["name"]): entry for entry in json.loads(ended.stdout)}
        assert set(entries) == {(method, name) for name in ("connect", "message", "close")}
        assert entries[method, "message"]["num_requests"] > 5


OWN = """
import locust
from locust import task
from echo_load.swarm import users
from echo_load.swarm.hooks import install

install(locust.events)


class Mine(users.EchoUser):
    @task
    def own(self):
        assert self.client.echo(b"mine") == b"mine"
        self.client.send(b"by hand, and more")
        assert self.client.receive(7) == b"by hand"
        assert self.client.receive(10) == b", and more"
        self.client.close()
        self.environment.runner.quit()
"""


def test_users_of_ones_own(echo_server: EchoServerProcess, tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN)
    ended = locust(*SHORT[:-1], "30s", "--host", echo_server.url, "--json", file=file)
    assert ended.returncode == 0, ended.stderr.decode()
    entries = {entry["name"]: entry for entry in json.loads(ended.stdout)}
    assert set(entries) == {"connect", "message", "send", "receive", "close"}
    # What they do is what their own tasks do.
    message = entries["message"]
    assert message["total_content_length"] == len(b"mine") * message["num_requests"]


@pytest.mark.parametrize("users", [[], ["EchoBlockUser"]], ids=["user", "block"])
def test_what_is_under_way_at_the_end_is_waited_for_and_counted(users: list[str]) -> None:
    """A target that falls silent in the midst of it has not passed."""
    with Service(silent_after(20)) as service:
        options = ["--timeout", "2s", *(["--block-connections", "5"] if users else [])]
        ended = locust(
            *("--headless", "-u", "1", "-t", "1s", "--host", service.target, "--json"),
            *(*options, *users),
        )
    assert ended.returncode == 1
    entries = {entry["name"]: entry for entry in json.loads(ended.stdout)}
    message = entries["message"]
    silent = 5 if users else 1
    assert (message["num_requests"], message["num_failures"]) == (21 * silent, silent)
    assert f"failed: no_reply {silent}" in ended.stderr.decode()


def test_errors_that_a_threshold_allows_do_not_fail_a_swarm(start_server: StartServer) -> None:
    server = start_server("--fault", "close@2%")
    host = ("--host", server.url)
    allowed = locust(*SHORT, *host, "--threshold", "errors<50%")
    said = allowed.stderr.decode()
    assert (allowed.returncode, "threshold errors<50% kept: " in said) == (0, True), said
    assert "message: closed" in said
    # Once a kind with its cause, which locust's tables do not have.
    assert said.count("the first closed of message: the server closed the connection") == 1
    assert locust(*SHORT, *host).returncode == 1


def test_a_test_lasts_as_long_as_it_was_told(echo_server: EchoServerProcess) -> None:
    ended = locust(*SHORT, "--host", echo_server.url, "--json")
    (message,) = [one for one in json.loads(ended.stdout) if one["name"] == "message"]
    assert message["last_request_timestamp"] - message["start_time"] > 0.9 * 2.0


def test_figures_begin_anew_where_locusts_do(
    echo_server: EchoServerProcess, tmp_path: Path
) -> None:
    ended = locust(
        *("--headless", "-u", "5", "-r", "5", "-t", "2s", "--host", echo_server.url),
        *("--reset-stats", "--json", "--csv", "out"),
        cwd=tmp_path,
    )
    rows = rows_of(tmp_path / "out_microseconds.csv")
    entries = {entry["name"]: entry for entry in json.loads(ended.stdout)}
    assert {name: int(row["count"]) for (_, name), row in rows.items()} == {
        name: entry["num_requests"] for name, entry in entries.items()
    }


def test_a_worker_that_cannot_run_its_users_fails_the_test(
    start_server: StartServer, tmp_path: Path
) -> None:
    """It has no such file where it runs."""
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
    _, said = master.communicate(timeout=DEADLINE)
    reason = f"--tls-ca: {certificates.authority.name}: No such file or directory"
    assert worker.returncode == 2
    assert reason in worker.stderr.decode()
    assert master.returncode == 1
    assert f"failed: {reason}" in said.decode()
    assert "failed: not one message came back" in said.decode()


def test_a_target_may_stand_anywhere(echo_server: EchoServerProcess) -> None:
    command = [*LOAD, "swarm", "--headless", "-u", "1", "-t", "1s"]
    assert run([*command, echo_server.url, "EchoUser"]).returncode == 0
    for arguments, error in (
        (["a:1", "b:2"], "a:1 and b:2 are both targets; give one"),
        (["tcp://h:99999"], "'99999' is not a port"),
    ):
        ended = run([*command, *arguments])
        (line,) = ended.stderr.decode().splitlines()
        assert ended.returncode == 2
        assert line.startswith("echo-load swarm: error: ")
        assert error in line


def test_thresholds_in_a_file(echo_server: EchoServerProcess, tmp_path: Path) -> None:
    file = tmp_path / "locust.toml"
    file.write_text('[tool.locust]\nthreshold = ["p99<1h", "p50<1us"]\n')
    ended = locust(*SHORT, "--host", echo_server.url, "--config", str(file))
    assert ended.returncode == 99
    assert b"threshold p99<1h kept: " in ended.stderr
    assert b"threshold p50<1us crossed: " in ended.stderr


def test_a_variable_that_is_no_option_is_refused() -> None:
    ended = run([*LOAD, "swarm", "--headless"], ECHO_SWARM_RAET="5")
    assert ended.returncode == 2
    assert ended.stderr.decode() == (
        "echo-load: error: the environment sets ECHO_SWARM_RAET, which is no option; did you mean "
        "ECHO_SWARM_RATE?\n"
    )


@pytest.fixture
def swarm(start_server: StartServer, tmp_path: Path) -> Iterator[Swarm]:
    server = start_server("--workers", "2", "--max-connections", "5000")
    made = Swarm(
        *(server.url, tmp_path / "master.log", "--wait", "100ms-300ms", "--enable-rebalancing"),
        *("--threshold", "p99<1h", "--threshold", "p50<1us"),
    )
    try:
        until(made.answers, "the web page")
        yield made
    finally:
        made.close()


def message_row(stats: Any) -> Any:
    found = [row for row in stats["stats"] if row["name"] == "message"]
    return found[0] if found else {"num_requests": 0}


def test_a_swarm_of_workers_loses_one_and_gains_one(swarm: Swarm) -> None:
    first, _ = swarm.worker(), swarm.worker()
    until(
        lambda: "2 workers" in swarm.said() or swarm.said().count("reported as ready") == 2,
        "workers",
    )
    swarm.post("/swarm", user_count=1000, spawn_rate=1000, host=swarm.host)
    until(lambda: swarm.stats()["user_count"] == 1000, "all users to run")
    until(lambda: message_row(swarm.stats())["num_requests"] > 2000, "messages")
    stats = swarm.stats()
    assert stats["state"] == "running"
    assert {row["num_failures"] for row in stats["stats"]} == {0}
    metrics = swarm.metrics()
    assert metrics["echo_swarm_users",] == 1000
    assert metrics["echo_swarm_workers",] == 2
    # Shown before there is any.
    for name, kind in (("connect", "refused"), ("message", "no_reply"), ("message", "corrupt")):
        assert metrics[("echo_swarm_failures_total", *sorted(("TCP", name, kind)))] == 0
    count = metrics["echo_swarm_response_time_seconds_count", "TCP", "message"]
    assert count > 0
    assert metrics["echo_swarm_response_time_seconds_bucket", "+Inf", "TCP", "message"] == count

    def rows() -> dict[str, Any]:
        extended, _ = swarm.stats()["extended_stats"]
        return {row["name"]: row for row in extended["data"]}

    until(lambda: rows()["connect"]["count"] == 1000, "all connections")
    # What comes of the thresholds is there while it runs.
    assert metrics["echo_swarm_threshold_kept", "p99<1h"] == 1
    assert metrics["echo_swarm_threshold_kept", "p50<1us"] == 0
    assert metrics["echo_swarm_generator_bound",] in {0, 1}
    _, verdict = stats["extended_stats"]
    said = {row["what"]: row["verdict"] for row in verdict["data"]}
    assert said["threshold p99<1h"] == "kept"
    assert said["threshold p50<1us"] == "crossed"
    message = rows()["message"]
    assert 0 < message["p50"] <= message["p99"] <= message["max"]

    first.kill()
    first.wait()
    until(lambda: "failed to send heartbeat" in swarm.said(), "the master to miss its worker")
    until(lambda: swarm.metrics()["echo_swarm_workers",] == 1, "one worker to be left")
    before = message_row(swarm.stats())["num_requests"]
    until(lambda: message_row(swarm.stats())["num_requests"] > before, "the run to go on")

    swarm.worker()
    until(lambda: swarm.metrics()["echo_swarm_workers",] == 2, "another worker to join")
    until(
        lambda: (
            sorted(
                one["user_count"] for one in swarm.stats()["workers"] if one["state"] == "running"
            )
            == [500, 500]
        ),
        "it to get its share",
    )
    swarm.post("/stop")
    # Locust waits a minute for the worker that is missing before it says that it has stopped.
    until(lambda: swarm.stats()["user_count"] == 0, "the end")


def test_a_reset_clears_microseconds_too(swarm: Swarm) -> None:
    swarm.worker()
    until(lambda: "reported as ready" in swarm.said(), "a worker")
    swarm.post("/swarm", user_count=3, spawn_rate=100, host=swarm.host)
    until(lambda: message_row(swarm.stats())["num_requests"] > 20, "messages")
    swarm.post("/stop")
    until(lambda: swarm.stats()["state"] == "stopped", "the end")
    assert swarm.stats()["extended_stats"][0]["data"]
    swarm.post("/stats/reset")
    assert swarm.stats()["extended_stats"][0]["data"] == []


def test_the_form_is_looked_at_before_a_test(echo_server: EchoServerProcess, swarm: Swarm) -> None:
    fields = {"user_count": 1, "spawn_rate": 1, "host": echo_server.url}
    for field, value, complaint in (
        ("payload_size", "x", "--payload-size: 'x' is not a size"),
        ("host", "nonsense:x", "--host: 'nonsense:x': 'x' is not a port"),
        ("threshold", "p99", "--threshold: 'p99' is not a threshold"),
    ):
        answer = json.loads(swarm.post("/swarm", **{**fields, field: value}))
        assert answer["success"] is False
        assert complaint in answer["message"]
    assert swarm.stats()["state"] == "ready"


def test_memory_stays_flat_where_everything_fails(unused_port: int) -> None:
    load = ("--headless", "-u", "100", "-r", "1000", "-t", "8s")
    with subprocess.Popen(
        [*locust_command(), *load, "--host", f"tcp://127.0.0.1:{unused_port}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
    ) as client:
        process = psutil.Process(client.pid)
        sizes: list[int] = []

        def look() -> bool:
            try:
                sizes.append(process.memory_info().rss)
            except psutil.Error:
                return True
            return client.poll() is not None

        until(look, "the end")
    assert client.returncode == 1
    settled = max(sizes[: len(sizes) // 2])
    assert max(sizes) < settled + 4 * 2**20


@pytest.mark.parametrize("users", [[], ["EchoBlockUser"]])
def test_the_command_starts_a_server_and_a_swarm(users: list[str]) -> None:
    ended = run([*LOAD, "swarm", *users, "--headless", "-u", "3", "-t", "1s", "--threshold=loss<1"])
    said = ended.stderr.decode()
    assert ended.returncode == 0, said
    assert "threshold loss<1 kept: 0" in said
    assert "MonkeyPatchWarning" not in said
    assert "Traceback" not in said


def test_the_command_has_defaults_that_the_environment_and_options_change(
    echo_server: EchoServerProcess,
) -> None:
    def said(*options: str, **settings: str) -> str:
        command = [*LOAD, "swarm", echo_server.url, "--headless", *options]
        ended = run(command, stdin=b"", **settings)
        assert ended.returncode == 0, ended.stderr.decode()
        return ended.stderr.decode()

    default = said()
    assert '{"EchoUser": 100}' in default
    assert "Run time limit set to 10 seconds" in default
    stages = said("--stages", "2/1s")
    assert '{"EchoUser": 2}' in stages
    assert "Run time limit" not in stages
    told = said(LOCUST_USERS="7", LOCUST_RUN_TIME="1s")
    assert '{"EchoUser": 7}' in told
    assert "Run time limit set to 1 seconds" in told


def test_the_command_lists_its_options() -> None:
    ended = run([*LOAD, "swarm", "--help"])
    assert ended.returncode == 0
    for option in (b"--payload-size", b"--block-connections", b"--threshold", b"--tls-insecure"):
        assert option in ended.stdout
    # Locust's own, for which no server is started.
    ended = run([*LOAD, "swarm", "--", "--help"])
    assert ended.returncode == 0
    assert b"--headless" in ended.stdout


def test_the_command_takes_a_target(echo_server: EchoServerProcess) -> None:
    arguments = ["--headless", "-u", "2", "-t", "1s", "EchoBlockUser", "--block-connections", "4"]
    ended = run([*LOAD, "swarm", echo_server.url, *arguments])
    assert ended.returncode == 0, ended.stderr.decode()
    assert echo_server.log().count("connection accepted") == 8
    ended = run([*LOAD, "swarm", "nonsense:x", "--headless"])
    assert ended.returncode == 2
    assert ended.stderr.decode().splitlines() == [
        "echo-load swarm: error: 'nonsense:x': 'x' is not a port between 0 and 65535"
    ]


def test_the_command_ends_with_what_it_started(echo_server: EchoServerProcess) -> None:
    client = subprocess.Popen(
        [*LOAD, "swarm", echo_server.url, "--headless", "-u", "2", "-t", "10m"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    until(lambda: echo_server.log().count("connection accepted") == 2, "users")
    (child,) = psutil.Process(client.pid).children()
    os.kill(client.pid, signal.SIGTERM)
    assert client.wait(DEADLINE) == 0
    assert not child.is_running()


def test_every_option_has_the_variable_of_its_name() -> None:
    """Also a flag."""
    program = (
        "import echo_load.swarm.locustfile\n"
        "from echo_load.swarm.options import INSECURE, OPTIONS\n"
        "from locust.argument_parser import get_parser\n"
        "parsed = vars(get_parser().parse_args([]))\n"
        "for name in (*(one[0] for one in OPTIONS), INSECURE[0]):\n"
        "    value = parsed[name.replace('-', '_')]\n"
        "    print(name, *value if isinstance(value, list) else [value])\n"
    )
    names = [one[0] for one in OPTIONS]
    variables = {f"ECHO_SWARM_{name.upper().replace('-', '_')}": f"of {name}" for name in names}
    result = run(
        [sys.executable, "-c", program], stdin=b"", ECHO_SWARM_TLS_INSECURE="true", **variables
    )
    assert result.stdout.decode().splitlines() == [
        *(f"{name} of {name}" for name in names),
        "tls-insecure True",
    ]
