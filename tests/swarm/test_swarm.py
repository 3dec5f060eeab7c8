"""Locust with echo users, in real processes and on real servers."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from pathlib import Path

import psutil
import pytest

from support.certificates import make_certificates
from support.processes import (
    EchoServerProcess,
    StartServer,
    environment,
    until,
)
from support.swarms import OWN, SHORT, locust, locust_command


def rows_of(path: Path) -> dict[tuple[str, str], dict[str, str]]:
    with path.open(newline="") as file:
        return {(row["method"], row["name"]): row for row in csv.DictReader(file)}


@pytest.mark.slow
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
    counts = [int(row["count"]) for row in rows.values()]
    assert int(rows["", "Aggregated"]["count"]) == counts[-1] == sum(counts[:-1])
    log = ended.stderr.decode()
    assert "response times in microseconds" in log
    assert re.search(r"^TCP +message +[\d,]+ ", log, re.MULTILINE)


@pytest.mark.slow
def test_users_and_the_server_count_the_same(start_server: StartServer, tmp_path: Path) -> None:
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
        # What arrived on a connection is counted before its end.
        server.wait_for_metric("connections_open", 0)
        received = server.metric("received_bytes_total")
        # Replies to messages in flight when locust stopped its users are not counted.
        assert 0 <= received - 100 * messages <= 100 * connections
        entries = {entry["name"]: entry for entry in json.loads(ended.stdout)}
        assert entries["message"]["num_requests"] == messages
        assert entries["message"]["num_failures"] == 0
        assert entries["message"]["microseconds"]["count"] == messages


@pytest.mark.slow
def test_a_block_keeps_to_a_rate(echo_server: EchoServerProcess) -> None:
    ended = locust(
        *("--headless", "-u", "2", "-t", "2s", "--host", echo_server.url, "--json"),
        *("EchoBlockUser", "--rate", "200", "--block-connections", "10"),
    )
    assert ended.returncode == 0, ended.stderr.decode()
    (entry,) = (one for one in json.loads(ended.stdout) if one["name"] == "message")
    assert 0 < entry["num_requests"] <= 2 * 200 * 2


@pytest.mark.slow
def test_users_that_connect_at_once_do_not_delay_one_another(
    echo_server: EchoServerProcess, tmp_path: Path
) -> None:
    """Their messages wait for one another, but the kernel establishes connections."""
    ended = locust(
        *("--headless", "-u", "200", "-r", "200", "-t", "2s", "--host", echo_server.url),
        *("--csv", "out"),
        cwd=tmp_path,
    )
    assert ended.returncode == 0, ended.stderr.decode()
    rows = rows_of(tmp_path / "out_microseconds.csv")
    assert int(rows["TCP", "connect"]["count"]) == 200
    assert float(rows["TCP", "connect"]["p50_us"]) < float(rows["TCP", "message"]["p50_us"])


@pytest.mark.slow
def test_messages_of_all_sizes_come_back(echo_server: EchoServerProcess) -> None:
    """Some need several reads, and some several writes."""
    ended = locust(
        *(*SHORT, "--host", echo_server.url, "--payload-size", "1-4MiB", "--json"),
    )
    assert ended.returncode == 0, ended.stderr.decode()
    (entry,) = (one for one in json.loads(ended.stdout) if one["name"] == "message")
    assert entry["num_requests"] > 10
    assert entry["total_content_length"] > 4 << 20


@pytest.mark.slow
def test_stages_set_the_number_of_users(echo_server: EchoServerProcess) -> None:
    ended = locust("--headless", "--host", echo_server.url, "--stages", "3/3s,9/3s")
    assert ended.returncode == 0, ended.stderr.decode()
    assert re.findall(r'All users spawned: {"EchoUser": (\d+)}', ended.stderr.decode()) == [
        "3",
        "9",
    ]


@pytest.mark.slow
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


@pytest.mark.slow
def test_custom_users_run_their_own_tasks(echo_server: EchoServerProcess, tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN)
    ended = locust(*SHORT[:-1], "30s", "--host", echo_server.url, "--json", file=file)
    assert ended.returncode == 0, ended.stderr.decode()
    entries = {entry["name"]: entry for entry in json.loads(ended.stdout)}
    assert set(entries) == {"connect", "message", "send", "receive", "close"}
    # Only their own tasks were run.
    message = entries["message"]
    assert message["total_content_length"] == len(b"mine") * message["num_requests"]


@pytest.mark.slow
def test_a_test_lasts_for_its_run_time(echo_server: EchoServerProcess) -> None:
    ended = locust(*SHORT, "--host", echo_server.url, "--json")
    (message,) = [one for one in json.loads(ended.stdout) if one["name"] == "message"]
    assert message["last_request_timestamp"] - message["start_time"] > 0.9 * 2.0


@pytest.mark.slow
def test_microseconds_are_reset_with_locusts_statistics(
    echo_server: EchoServerProcess, tmp_path: Path
) -> None:
    ended = locust(
        *("--headless", "-u", "5", "-r", "5", "-t", "2s", "--host", echo_server.url),
        *("--reset-stats", "--json", "--csv", "out"),
        cwd=tmp_path,
    )
    rows = rows_of(tmp_path / "out_microseconds.csv")
    entries = {entry["name"]: entry for entry in json.loads(ended.stdout)}
    counts = {name: int(row["count"]) for (_, name), row in rows.items()}
    assert counts.pop("Aggregated") == sum(counts.values())
    assert counts == {name: entry["num_requests"] for name, entry in entries.items()}


@pytest.mark.slow
def test_memory_does_not_grow_with_failures(unused_port: int) -> None:
    load = ("--headless", "-u", "100", "-r", "1000", "-t", "8s")
    with subprocess.Popen(
        [*locust_command(), *load, "--host", f"tcp://127.0.0.1:{unused_port}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
    ) as client:
        process = psutil.Process(client.pid)
        sizes: list[int] = []

        def poll() -> bool:
            try:
                sizes.append(process.memory_info().rss)
            except psutil.Error:
                return True
            return client.poll() is not None

        until(poll, "the end")
    assert client.returncode == 1
    settled = max(sizes[: len(sizes) // 2])
    assert max(sizes) < settled + 4 * 2**20
