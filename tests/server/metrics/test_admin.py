"""Metrics and health on a port of their own."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from support.ports import free_port
from support.processes import (
    DEADLINE,
    SERVER,
    EchoServerProcess,
    StartServer,
    accepts,
    descriptor_limit,
    echoes,
    fill,
    one_error,
    receive_exactly,
    reset,
    run,
    until,
)

workers = pytest.mark.parametrize("workers", ["1", "2"])


@workers
def test_the_counters_are_correct(start_server: StartServer, workers: str) -> None:
    server = start_server("--workers", workers, "--admin", "127.0.0.1:0")
    with server.connect() as open_one:
        assert echoes(open_one, b"x" * 1000)
        for _ in range(10):
            with server.connect() as connection:
                assert echoes(connection, b"y" * 100)
        for _ in range(5):
            broken = server.connect()
            assert echoes(broken, b"z")
            broken.sendall(b"z")
            reset(broken)
        until(lambda: server.metric("connections_open") == 1, "all but one to be gone")
        closed = "connections_closed_total"
        server.wait_for_metric("connections_accepted_total", 16)
        server.wait_for_metric(closed, 15)
        server.wait_for_metric(closed, 10, reason="end_of_stream")
        server.wait_for_metric(closed, 5, reason="reset")
        assert 2005 <= server.metric("received_bytes_total") <= 2010
        assert server.metric("reads_total") >= 16
        assert server.metric("writes_total") >= 16
        server.wait_for_metric("workers", int(workers))
        assert server.metric("worker_open_fds") > 0
        assert server.metric("worker_resident_memory_bytes") > 1 << 20
        until(lambda: server.metric("hub_lag_seconds_count") > 0, "a look at the hub")
        until(lambda: server.metric("worker_cpu_seconds_total") > 0, "a look at the clock")


@workers
def test_figures_of_each_process(start_server: StartServer, workers: str) -> None:
    before = time.time()
    server = start_server(
        *("--workers", workers, "--admin", "127.0.0.1:0"), preexec=descriptor_limit(100)
    )
    pids = server.workers()
    assert len(pids) == int(workers)

    def agrees() -> bool:
        descriptors = sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids)
        return server.metric("worker_open_fds") == descriptors

    until(agrees, "the descriptors to be those that are listed")
    assert server.metric("worker_max_fds") == 100 * len(pids)
    for slot in range(len(pids)):
        started = server.metric("worker_start_time_seconds", worker=str(slot))
        # The system knows its own start to the second.
        assert before - 2 < started < time.time() + 2


def test_bytes_that_cannot_be_sent_are_not_counted_as_sent(start_server: StartServer) -> None:
    server = start_server("--admin", "127.0.0.1:0")
    with server.connect() as connection:
        filled = fill(connection)

        def unsent() -> float:
            return server.metric("received_bytes_total") - server.metric("sent_bytes_total")

        until(lambda: 0 < unsent() <= 256 * 1024, "one read to be kept back")
        connection.settimeout(DEADLINE)
        receive_exactly(connection, filled)
        until(
            lambda: server.metric("received_bytes_total") == server.metric("sent_bytes_total"),
            "the rest to be sent",
        )
        assert server.metric("writes_total") > server.metric("reads_total")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_connection_limit(start_server: StartServer, workers: str) -> None:
    options = ("--workers", workers, "--admin", "127.0.0.1:0")
    assert start_server(*options, "--max-connections", "7").metric("connections_limit") == 7
    assert "connections_limit" not in start_server(*options).get("/metrics")[1]


RESTARTED = "workers restarted"


def is_restarted(server: EchoServerProcess, before: int) -> bool:
    return server.log().count(RESTARTED) > before


@pytest.mark.slow
def test_the_connection_limit_is_that_of_the_workers_after_a_reload(
    start_server: StartServer, tmp_path: Path
) -> None:
    config = tmp_path / "server.toml"
    config.write_text("max-connections = 7\n")
    options = ("--workers", "2", "--admin", "127.0.0.1:0", "--config", str(config))
    server = start_server(*options)
    for setting, limit in (("max-connections = 9\n", 9), ("", None), ("max-connections = 8\n", 8)):
        restarts = server.log().count(RESTARTED)
        config.write_text(setting)
        server.signal(signal.SIGHUP)
        until(partial(is_restarted, server, restarts), "the restart")
        lines = [line for line in server.get("/metrics")[1].splitlines() if "limit" in line]
        shown = [line for line in lines if not line.startswith("#")]
        assert shown == ([] if limit is None else [f"echo_server_connections_limit {limit}"])


def test_both_formats(start_server: StartServer) -> None:
    server = start_server("--admin", "127.0.0.1:0", "--workers", "2", "--max-connections", "7")
    status, text = server.get("/metrics")
    assert status == 200
    plain = {
        # Here what is constant is a gauge.
        family.name.replace("build_info", "build"): family
        for family in prometheus(text)
    }
    families = plain
    assert families["echo_server_received_bytes"].type == "counter"
    assert families["echo_server_hub_lag_seconds"].type == "histogram"
    status, text = server.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert status == 200
    families = {family.name: family for family in openmetrics(text)}  # type: ignore[no-untyped-call]
    assert families["echo_server_received_bytes"].unit == "bytes"
    assert families["echo_server_worker_cpu_seconds"].unit == "seconds"
    assert families["echo_server_connections_open"].type == "gauge"
    assert all(name.startswith("echo_server_") for name in families)
    assert all(family.documentation.endswith((".", ")")) for family in families.values())
    assert families.keys() == plain.keys()
    for name, family in families.items():
        assert name.endswith(family.unit)
        assert family.documentation == plain[name].documentation
        assert family.type == plain[name].type or name == "echo_server_build"
        assert described(family) == described(plain[name])
    lag = families["echo_server_hub_lag_seconds"].samples
    for worker in ("0", "1"):
        counts = [one.value for one in lag if one.labels["worker"] == worker and "le" in one.labels]
        assert counts == sorted(counts)
    fields = server.get("/metrics", Accept="text/plain;version=0.0.4, */*;q=0.1")[1]
    assert "# EOF" not in fields


def described(family: Metric) -> list[tuple[str, dict[str, str]]]:
    """The samples of a family without their values."""
    return [(sample.name, sample.labels) for sample in family.samples]


@workers
def test_health_from_ready_to_drained(start_server: StartServer, workers: str) -> None:
    server = start_server("--workers", workers, "--admin", "127.0.0.1:0")
    assert server.get("/healthz") == (200, "ok\n")
    assert server.get("/readyz") == (200, "ready\n")
    assert server.get("/nothing")[0] == 404
    with server.connect() as connection:
        assert echoes(connection)
        server.signal(signal.SIGTERM)
        until(lambda: server.get("/readyz") == (503, "starting or draining\n"), "draining")
        assert server.get("/healthz")[0] == 200
        server.wait_for_metric("connections_open", 1)
        assert echoes(connection)
    assert server.wait() == 0


def test_not_ready_while_workers_start(start_server: StartServer, tmp_path: Path) -> None:
    """Workers read a configuration that does not come: a pipe that nobody writes to."""
    pipe = tmp_path / "config.toml"
    os.mkfifo(pipe)
    port = free_port()
    server = start_server(
        *("--workers", "2", "--admin", f"127.0.0.1:{port}", "--config", str(pipe)), wait=False
    )
    server.admin = f"http://127.0.0.1:{port}"
    until(lambda: give_configuration(pipe), "the supervisor to read")
    until(lambda: len(server.workers()) == 2, "two workers")
    until(lambda: accepts(port), "the admin page")
    assert server.get("/readyz")[0] == 503
    assert server.get("/healthz")[0] == 200
    server.wait_for_metric("workers", 2)

    def is_ready() -> bool:
        give_configuration(pipe)
        return server.get("/readyz")[0] == 200

    until(is_ready, "the server to be ready")


def give_configuration(pipe: Path) -> bool:
    """Let whoever reads the pipe now read an empty file; False if nobody does."""
    try:
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


@workers
def test_a_taken_admin_port(echo_server: EchoServerProcess, workers: str) -> None:
    taken = f"127.0.0.1:{echo_server.port}"
    result = run([*SERVER, "--port", "0", "--workers", workers, "--admin", taken])
    assert result.returncode == 3
    assert result.stdout == b""
    assert result.stderr.decode() == (
        f"echo-server: error: --admin: cannot listen on tcp://{taken}: Address already in use\n"
    )


def test_an_admin_host_that_is_not_known() -> None:
    code, line = one_error("--port", "0", "--admin", "no.such.host.invalid:9607")
    assert code == 3
    assert line.startswith(
        "echo-server: error: --admin: cannot listen on tcp://no.such.host.invalid:9607: "
    )


@pytest.mark.parametrize(
    "text", ["foo", "9607", "", "[::1]", "::1", "h:", "h:x", ":9607", "udp://h:7", "http://h", "*"]
)
def test_an_admin_address_without_a_port(text: str) -> None:
    code, line = one_error("--port", "0", "--admin", text)
    assert code == 2
    assert line == (
        f"echo-server: error: --admin: {text!r} is not HOST:PORT; write it as in 127.0.0.1:9607 "
        "(the port is required)"
    )


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz", "/nothing"])
def test_head_is_answered_like_get_without_the_content(
    start_server: StartServer, path: str
) -> None:
    server = start_server("--admin", "127.0.0.1:0")
    status, text = server.get(path)
    connection = http.client.HTTPConnection(server.admin.removeprefix("http://"), timeout=DEADLINE)
    connection.request("HEAD", path)
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (status, b"")
    # Figures may have grown since.
    assert abs(int(answer.headers["Content-Length"]) - len(text)) < 100
    connection.close()


def test_silent_clients_block_neither_the_page_nor_the_echo(
    start_server: StartServer,
) -> None:
    """Also where descriptors are few: the page has some of its own."""
    server = start_server("--admin", "127.0.0.1:0", preexec=descriptor_limit(28))
    admin = ("127.0.0.1", int(server.admin.rpartition(":")[2]))
    with ExitStack() as stack:
        for _ in range(100):
            silent = stack.enter_context(socket.create_connection(admin, timeout=DEADLINE))
            silent.sendall(b"GET /metr")
        assert server.get("/healthz") == (200, "ok\n")
        assert server.metric("workers") == 1
        with server.connect() as connection:
            assert echoes(connection)
    assert "Traceback" not in server.log()


def test_a_worker_out_of_descriptors_does_not_block_the_page(start_server: StartServer) -> None:
    server = start_server("--admin", "127.0.0.1:0", preexec=descriptor_limit(40))
    with ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(server.connect())
        server.wait_for_log("accepting paused")
        assert server.get("/healthz") == (200, "ok\n")
        assert server.metric("accept_errors_total") > 0


def test_malformed_requests(start_server: StartServer) -> None:
    server = start_server("--admin", "127.0.0.1:0", "--log-level", "debug")
    admin_port = int(server.admin.rpartition(":")[2])
    for nonsense in (b"", b"\0\1\2\3\r\n\r\n", b"GET /metrics", b"POST /readyz HTTP/1.1\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", admin_port), DEADLINE) as connection:
            connection.sendall(nonsense)
            reset(connection)
    with server.connect() as connection:
        assert echoes(connection)
    assert server.get("/readyz")[0] == 200
    assert '"level": "error"' not in server.log()
    assert "Traceback" not in server.log()


def test_the_access_log(start_server: StartServer) -> None:
    server = start_server("--access-log", "--workers", "2")
    with server.connect() as connection:
        peer = "{}:{}".format(*connection.getsockname())
        assert echoes(connection, b"a secret of 24 bytes ...")
    server.wait_for_log('"event": "connection"')
    (line,) = [line for line in server.log().splitlines() if '"event": "connection"' in line]
    entry = json.loads(line)
    assert entry["peer"] == peer
    assert (entry["received_bytes"], entry["sent_bytes"]) == (24, 24)
    assert entry["reason"] == "end_of_stream"
    assert 0 < entry["seconds"] < DEADLINE
    assert "secret" not in server.log()


def test_a_sampled_access_log(start_server: StartServer) -> None:
    server = start_server("--access-log", "--access-log-sample", "50%")
    for _ in range(200):
        with server.connect() as connection:
            assert echoes(connection)
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    # 200 coins: outside of this once in 10**9 runs.
    assert 55 < server.log().count('"event": "connection"') < 145
