"""PROXY headers of locust's users, and the clients that these pretend to be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from echo_load.swarm.pretended_clients import beginning
from support.certificates import make_certificates
from support.processes import LOAD, EchoServerProcess, StartServer, run, until
from support.swarms import OWN, SHORT, locust, processes

LISTEN = ("--proxy-protocol", "--access-log", "--admin", "127.0.0.1:0")
BLOCKS = ("EchoBlockUser", "--block-connections", "3")


def peers(server: EchoServerProcess, count: int) -> list[str]:
    """Wait for the end of a number of connections; return their peers, without the ports."""

    def ended() -> list[str]:
        return [line for line in server.log().splitlines() if '"event": "connection"' in line]

    until(lambda: len(ended()) >= count, "the connections to end")
    return sorted(json.loads(line)["peer"].rpartition(":")[0] for line in ended())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("users", "version", "connections"),
    [((), "v1", 5), (BLOCKS, "v2", 15)],
    ids=["users", "blocks"],
)
def test_each_connection_has_an_address_of_its_own(
    start_server: StartServer, users: tuple[str, ...], version: str, connections: int
) -> None:
    server = start_server(*LISTEN)
    proxy = ("--send-proxy", version, "--send-proxy-source", "10.0.0.0/8")
    ended = locust(*SHORT, "--host", server.url, *users, *proxy)
    assert ended.returncode == 0, ended.stderr.decode()
    expected = [f"10.0.0.{last}" for last in range(1, connections + 1)]
    assert peers(server, connections) == sorted(expected)


@pytest.mark.slow
@pytest.mark.parametrize("users", [(), BLOCKS], ids=["users", "blocks"])
def test_workers_have_different_addresses(
    start_server: StartServer, users: tuple[str, ...]
) -> None:
    """There are 254; the second worker begins in the middle."""
    server = start_server(*LISTEN)
    ended = run(
        [
            *(*LOAD, "swarm", server.url, "--headless", "-u", "4", "-r", "100", "-t", "3s"),
            *(*processes(2), *users),
            *("--send-proxy", "v2", "--send-proxy-source", "192.0.2.0/24"),
        ]
    )
    assert ended.returncode == 0, ended.stderr.decode()
    each = 2 * (3 if users else 1)
    expected = [f"192.0.2.{first + number}" for first in (1, 128) for number in range(each)]
    assert peers(server, 2 * each) == sorted(expected)


@pytest.mark.slow
def test_a_user_keeps_its_address(start_server: StartServer, tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN.replace("self.environment.runner.quit()", "pass"))
    server = start_server(*LISTEN)
    ended = locust(
        *("--headless", "-u", "2", "-r", "100", "-t", "1s", "--host", server.url),
        *("--send-proxy", "v1", "--send-proxy-source", "10.0.0.0/8"),
        file=file,
    )
    assert ended.returncode == 0, ended.stderr.decode()
    # Its task closes the connection at the end.
    seen = peers(server, 3)
    assert len(seen) > 4
    assert set(seen) == {"10.0.0.1", "10.0.0.2"}


@pytest.mark.slow
def test_headers_come_before_tls_and_name_no_client_on_unix_sockets(
    start_server: StartServer, tmp_path: Path
) -> None:
    certificates = make_certificates(tmp_path / "certificates")
    socket = f"unix://{tmp_path}/echo.sock"
    server = start_server(
        *(*LISTEN, "--listen", "tls://127.0.0.1:0", "--listen", socket, *certificates.options)
    )
    tls = ("--host", server.url, "--tls-ca", str(certificates.authority))
    source = ("--send-proxy-source", "2001:db8::7")
    for host in ((*tls, *source), (*tls, *source, *BLOCKS), ("--host", socket)):
        ended = locust(*SHORT, *host, "--send-proxy", "v2")
        assert ended.returncode == 0, ended.stderr.decode()
    seen = peers(server, 5 + 15 + 5)
    assert seen.count("[2001:db8::7]") == 5 + 15


@pytest.mark.slow
def test_without_a_source_the_header_has_the_true_address(start_server: StartServer) -> None:
    server = start_server(*LISTEN)
    ended = locust(*SHORT, "--host", server.url, "--send-proxy", "v1")
    assert ended.returncode == 0, ended.stderr.decode()
    assert peers(server, 5) == ["127.0.0.1"] * 5


@pytest.mark.slow
@pytest.mark.parametrize("variable", [False, True])
def test_a_server_that_the_command_starts_expects_headers(variable: bool) -> None:
    ended = run(
        [
            *(*LOAD, "swarm", "--headless", "-u", "2", "-t", "1s"),
            *(() if variable else ("--send-proxy", "v2")),
        ],
        ECHO_SWARM_SEND_PROXY="v1" if variable else "",
    )
    assert ended.returncode == 0, ended.stderr.decode()


@pytest.mark.slow
@pytest.mark.parametrize("users", [(), BLOCKS], ids=["users", "blocks"])
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_target_that_expects_no_header(
    echo_server: EchoServerProcess, users: tuple[str, ...], version: str
) -> None:
    ended = locust(*SHORT, "--host", echo_server.url, *users, "--send-proxy", version)
    assert ended.returncode == 1
    assert "failed: the PROXY header came back: the target does not" in ended.stderr.decode()


def test_workers_begin_far_from_one_another() -> None:
    assert [beginning(worker, 16) for worker in range(8)] == [0, 8, 4, 12, 2, 10, 6, 14]
    assert [beginning(worker, 254) for worker in range(4)] == [0, 127, 63, 190]
    assert {beginning(worker, 1) for worker in range(100)} == {0}
    # However many there are, each has at least half of an equal part.
    for workers in range(1, 100):
        begins = sorted(beginning(worker, 2**24) for worker in range(workers))
        gaps = [after - before for before, after in zip(begins, [*begins[1:], 2**24], strict=True)]
        assert min(gaps) * 2 * workers >= 2**24
