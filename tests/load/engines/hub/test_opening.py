"""The opening of connections: PROXY headers, socket options, the TLS that was negotiated."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import subprocess
import threading
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from echo_client.addresses import Address
from echo_client.socket_options import SocketOptions
from echo_core.proxy_protocol import read_header
from echo_load.engines.hub.connection import ConnectionSlot, HubConnection
from echo_load.limits.watch import WatchPlan, watch
from echo_load.plan.plan import Plan
from echo_load.runner.controller import run as run_plan
from support.certificates import Certificates
from support.misbehaving import Service
from support.ports import free_port
from support.processes import (
    DEADLINE,
    LOAD,
    EchoServerProcess,
    StartServer,
    accepts,
    loaded,
    program,
    receive_exactly,
    run,
    until,
)

LISTEN = ("--proxy-protocol", "--admin", "127.0.0.1:0", "--access-log")
ONE = ("-c", "1", "-n", "1", "--no-reconnect")
engines = pytest.mark.parametrize("engine", ["hub", "threads", "greenlets"])
versions = pytest.mark.parametrize("version", ["v1", "v2"])


def peers(server: EchoServerProcess) -> list[str]:
    """Return the peers of the connections that have ended, without their ports."""
    logged = [line for line in server.log().splitlines() if '"event": "connection"' in line]
    return sorted(json.loads(line)["peer"].rpartition(":")[0] for line in logged)


def wait_for_peers(server: EchoServerProcess, expected: list[str]) -> None:
    until(lambda: len(peers(server)) >= len(expected), "the connections to end")
    assert peers(server) == sorted(expected)


# PROXY headers.


@versions
@pytest.mark.parametrize(
    ("engine", "listen", "source", "expected"),
    [
        ("hub", "127.0.0.1", "10.0.0.0/8", ["10.0.0.1", "10.0.0.2", "10.0.0.3"]),
        ("threads", "127.0.0.1", "192.0.2.8/31", ["192.0.2.8", "192.0.2.8", "192.0.2.9"]),
        ("greenlets", "127.0.0.1", "10.0.0.0/8", ["10.0.0.1", "10.0.0.2", "10.0.0.3"]),
        ("hub", "[::1]", "2001:db8::/64", [f"[2001:db8::{last}]" for last in (1, 2, 3)]),
        ("threads", "[::1]", "2001:db8::/64", [f"[2001:db8::{last}]" for last in (1, 2, 3)]),
        ("hub", "[::1]", "192.0.2.7", ["192.0.2.7"] * 3),
        ("greenlets", "127.0.0.1", "2001:db8::7", ["[2001:db8::7]"] * 3),
    ],
)
def test_the_server_sees_the_pretended_clients(
    start_server: StartServer,
    engine: str,
    version: str,
    listen: str,
    source: str,
    expected: list[str],
) -> None:
    server = start_server("--listen", f"tcp://{listen}:0", *LISTEN)
    code, result = loaded(
        *("run", server.url, "-c", "3", "-n", "30", "--engine", engine, "--processes", "2"),
        *("--send-proxy", version, "--send-proxy-source", source, "--reconcile", server.admin),
    )
    assert code == 0, result.reasons
    assert (result.plan.send_proxy, result.plan.send_proxy_source) == (version, source)
    # The header is no payload: 30 messages of 64 bytes.
    assert result.reconciliation is not None
    assert result.reconciliation.balanced
    assert result.totals.bytes_sent == result.totals.bytes_received == 30 * 64
    wait_for_peers(server, expected)


@engines
@versions
def test_without_a_source_the_header_has_the_true_addresses(engine: str, version: str) -> None:
    found: list[tuple[object, object]] = []

    def behave(connection: socket.socket, _over: threading.Event) -> None:
        header = read_header(lambda size: receive_exactly(connection, size))
        found.append((header, connection.getpeername()))
        while data := connection.recv(64):
            connection.sendall(data)

    with Service(behave) as service:
        code, result = loaded(
            *("run", service.target, "-c", "2", "-n", "4", "--engine", engine),
            *("--send-proxy", version, "--source-ip", "127.0.0.9"),
        )
    assert code == 0, result.reasons
    assert len(found) == 2
    for header, peer in found:
        assert header == peer


@engines
@versions
def test_the_header_comes_before_tls(
    start_server: StartServer, certificates: Certificates, engine: str, version: str
) -> None:
    server = start_server(*LISTEN, "--listen", "tls://127.0.0.1:0", *certificates.options)
    code, result = loaded(
        *("run", server.url, "-c", "2", "-n", "20", "--engine", engine, "--churn", "5"),
        *("--send-proxy", version, "--send-proxy-source", "10.0.0.0/8"),
        *("--tls-ca", str(certificates.authority), "--reconcile", server.admin),
    )
    assert code == 0, result.reasons
    assert result.reconciliation is not None
    assert result.reconciliation.balanced
    assert result.totals.bytes_sent == 20 * 64
    # A connection that is replaced keeps its address.
    wait_for_peers(server, ["10.0.0.1"] * 2 + ["10.0.0.2"] * 2)


@engines
@versions
def test_over_a_unix_socket_the_header_names_no_client(
    start_server: StartServer, tmp_path: Path, engine: str, version: str
) -> None:
    server = start_server(*LISTEN, "--listen", f"unix://{tmp_path}/echo")
    code, result = loaded(
        *("run", server.url, "-c", "2", "-n", "20", "--engine", engine, "--send-proxy", version),
        *("--reconcile", server.admin),
    )
    assert code == 0, result.reasons
    assert result.reconciliation is not None
    assert result.reconciliation.balanced


@engines
@versions
def test_a_target_that_expects_no_header(
    start_server: StartServer, engine: str, version: str
) -> None:
    server = start_server("--admin", "127.0.0.1:0")
    code, result = loaded(
        *("run", server.url, *ONE, "--engine", engine, "--send-proxy", version),
        *("--reconcile", server.admin),
    )
    assert code == 1
    # The hub engine sees the header come back before it has sent anything.
    assert result.totals.bytes_sent in {0, 64}
    assert result.totals.errors
    assert result.evidence.wrong_replies[0].received.text.startswith(
        "PROXY TCP4 127.0.0.1 127.0.0.1 " if version == "v1" else r"\r\n\r\n\x00\r\nQUIT\n!\x11"
    )
    assert any("the PROXY header came back: the target does not" in one for one in result.reasons)
    # What the server has received beyond the payload is the header.
    assert result.reconciliation is not None
    surplus = result.reconciliation.received_by_server - result.totals.bytes_sent
    assert surplus == 28 if version == "v2" else 40 <= surplus < 108


@engines
def test_a_tls_target_that_expects_no_header(
    start_server: StartServer, certificates: Certificates, engine: str
) -> None:
    server = start_server("--listen", "tls://127.0.0.1:0", *certificates.options)
    code, result = loaded(
        *("run", server.url, *ONE, "--engine", engine, "--send-proxy", "v2"),
        *("--tls-ca", str(certificates.authority)),
    )
    assert (code, result.totals.errors) == (1, {"handshake": 1})
    assert "TLS handshakes also fail if the target does not expect a PROXY header" in result.reasons


def test_a_server_that_is_started_for_the_test_expects_headers() -> None:
    code, result = loaded(
        *("run", "-c", "2", "-n", "20", "--send-proxy", "v1"),
        *("--send-proxy-source", "192.0.2.7:4711"),
    )
    assert code == 0, result.reasons
    assert result.reconciliation is not None
    assert result.reconciliation.balanced


@pytest.mark.parametrize("command", ["run", "watch"])
def test_the_connection_that_finds_out_which_address_answers_has_a_header(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    server = start_server(*LISTEN)

    def getaddrinfo(host: str, port: int, **_: object) -> list[object]:
        assert host == "echo.example"
        tcp = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*tcp, ("127.0.0.1", port)), (*tcp, ("127.0.0.2", port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    plan = Plan(
        targets=(f"echo.example:{server.port}",),
        connections=2,
        duration="500ms",
        send_proxy="v2",
        send_proxy_source="10.0.0.0/8",
    )
    result = run_plan(plan) if command == "run" else watch(WatchPlan(plan=plan))
    monkeypatch.undo()
    assert result.passed, result.reasons
    until(lambda: server.metric("connections_open") == 0, "the connections to end")
    assert server.metric("connections_closed_total", reason="proxy_header_invalid") == 0
    # It names no client.
    until(lambda: "127.0.0.1" in peers(server), "the connection in the log")
    seen = Counter(peers(server))
    assert seen["127.0.0.1"] == 1
    assert {"10.0.0.1", "10.0.0.2", "127.0.0.1"} <= set(seen)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ("watch", "-c", "2", "-d", "1s", "--interval", "100ms"),
        ("hold", "-c", "5", "--cycle", "500ms"),
        ("stress", "-c", "5", "-d", "500ms"),
        ("idle", "--up-to", "500ms"),
    ],
    ids=lambda command: command[0],
)
def test_other_commands_send_headers(start_server: StartServer, command: tuple[str, ...]) -> None:
    server = start_server(*LISTEN)
    code, result = loaded(
        *(*command, server.url, "--send-proxy", "v2", "--send-proxy-source", "10.0.0.0/8"),
    )
    assert code == 0, result.reasons
    opened = result.totals.connections_opened
    # In a watch, the first connection to each target is not counted.
    expected = opened + (command[0] == "watch")
    until(lambda: len(peers(server)) >= expected, "the connections to end")
    seen = Counter(peers(server))
    assert len(seen) == expected
    assert {peer.rpartition(".")[0] for peer in seen} == {"10.0.0"}
    assert set(seen.values()) == {1}


@pytest.mark.slow
@versions
def test_haproxy_accepts_the_header(
    start_server: StartServer, tmp_path: Path, version: str
) -> None:
    haproxy = program("haproxy")
    server = start_server(*LISTEN)
    port = free_port()
    file = tmp_path / "haproxy.cfg"
    file.write_text(
        "defaults\n mode tcp\n timeout connect 10s\n timeout client 10s\n timeout server 10s\n"
        f"listen echo\n bind 127.0.0.1:{port} accept-proxy\n"
        f" server one 127.0.0.1:{server.port} send-proxy\n"
    )
    process = subprocess.Popen([haproxy, "-db", "-f", str(file)])
    try:
        until(lambda: accepts(port), "haproxy")
        code, result = loaded(
            *("run", f"127.0.0.1:{port}", "-c", "2", "-n", "20"),
            *("--send-proxy", version, "--send-proxy-source", "192.0.2.0/24"),
        )
    finally:
        process.terminate()
        process.wait(DEADLINE)
    assert code == 0, result.reasons
    until(lambda: {"192.0.2.1", "192.0.2.2"} <= set(peers(server)), "the pretended clients")


# Socket options.


def test_options_of_the_hub_engine_s_sockets() -> None:
    options = SocketOptions(nodelay=False, keepalive=7.0, dscp=46, buffer_size=10_000)
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        address = Address(family, (host, 9))
        with closing(HubConnection.of(ConnectionSlot(1), address, None, options)) as opened:
            option = opened.getsockopt
            assert option(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
            assert option(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert option(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 7
            assert option(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 7
            assert option(socket.SOL_SOCKET, socket.SO_SNDBUF) == 20_000
            assert option(socket.SOL_SOCKET, socket.SO_RCVBUF) == 20_000
            level, name = (
                (socket.IPPROTO_IP, socket.IP_TOS)
                if family == socket.AF_INET
                else (socket.IPPROTO_IPV6, socket.IPV6_TCLASS)
            )
            assert option(level, name) == 46 << 2


# linux/in.h
IP_PKTOPTIONS, IP_RECVTOS = 9, 13


@engines
@pytest.mark.parametrize("options", [(), ("--dscp", "AF41"), ("--dscp", "63")])
def test_packets_have_the_dscp(engine: str, options: tuple[str, ...]) -> None:
    seen: list[int] = []

    def behave(connection: socket.socket, _over: threading.Event) -> None:
        connection.setsockopt(socket.IPPROTO_IP, IP_RECVTOS, 1)
        # A control message with the TOS of the first packet.
        control = connection.getsockopt(socket.IPPROTO_IP, IP_PKTOPTIONS, 64)
        size, level, kind, tos = struct.unpack_from("@Niii", control)
        assert (size, level, kind) == (20, socket.IPPROTO_IP, socket.IP_TOS)
        seen.append(tos >> 2)
        connection.sendall(connection.recv(64))

    with Service(behave) as service:
        code, result = loaded("run", service.target, *ONE, "--engine", engine, *options)
    assert code == 0, result.reasons
    expected = {"AF41": 34, "63": 63}[options[1]] if options else 0
    assert seen == [expected]
    assert result.plan.dscp == (expected if options else None)


def test_datagrams_have_the_dscp() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service:
        service.bind(("127.0.0.1", 0))
        service.settimeout(DEADLINE)
        service.setsockopt(socket.IPPROTO_IP, IP_RECVTOS, 1)
        seen: list[int] = []

        def serve() -> None:
            data, control, _, peer = service.recvmsg(100, 100)
            seen.extend(value[0] >> 2 for _, kind, value in control if kind == socket.IP_TOS)
            service.sendto(data, peer)

        thread = threading.Thread(target=serve)
        thread.start()
        target = f"udp://127.0.0.1:{service.getsockname()[1]}"
        code, _ = loaded("run", target, "-c", "1", "-n", "1", "--dscp", "EF")
        thread.join(DEADLINE)
    assert (code, seen) == (0, [46])


@engines
@pytest.mark.parametrize("options", [(), ("--keepalive", "60s")])
def test_the_kernel_sends_keep_alives(engine: str, options: tuple[str, ...]) -> None:
    timers: list[str] = []

    def behave(connection: socket.socket, _over: threading.Event) -> None:
        data = connection.recv(64)
        ports = connection.getpeername()[1], connection.getsockname()[1]
        # Until the retransmission timer of the message has stopped (proc(5), /proc/net/tcp).
        until(lambda: timer_of(*ports) in {"00", "02"}, "the acknowledgement")
        timers.append(timer_of(*ports))
        connection.sendall(data)

    with Service(behave) as service:
        code, result = loaded("run", service.target, *ONE, "--engine", engine, *options)
    assert code == 0, result.reasons
    assert timers == ["02" if options else "00"]


def timer_of(local: int, remote: int) -> str:
    """Return the running timer of the connection between ports; "02" is that of keep-alives."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if [int(one.rpartition(":")[2], 16) for one in fields[1:3]] == [local, remote]:
            return fields[5].partition(":")[0]
    raise AssertionError((local, remote))


def test_smaller_buffers_than_requested_are_reported(tmp_path: Path) -> None:
    most = int(Path("/proc/sys/net/core/wmem_max").read_text())
    requested = 2 * most
    file = tmp_path / "result.json"
    process = run([*LOAD, *f"run -c 1 -n 10 --buffer-size {requested} -o {file}".split()])
    assert process.returncode == 0, process.stderr
    shown = b" ".join(process.stdout.split())
    assert b"buffers of the " in shown
    assert b"the kernel gave " in shown
    result = json.loads(file.read_text())
    assert result["plan"]["buffer_size"] == requested
    assert result["buffers"]["send"] == most

    code, enough = loaded("run", "-c", "1", "-n", "10", "--buffer-size", "20000")
    assert code == 0
    assert enough.buffers is not None
    assert (enough.buffers.send, enough.buffers.receive) == (20_000, 20_000)
    assert not enough.buffers.shortfall


# TLS.


@engines
def test_the_version_and_cipher_of_tls_are_counted(
    start_server: StartServer, certificates: Certificates, tmp_path: Path, engine: str
) -> None:
    server = start_server("--listen", "tls://127.0.0.1:0", *certificates.options)
    page = tmp_path / "page.html"
    code, result = loaded(
        *("run", server.url, "-c", "2", "-n", "8", "--churn", "2", "--engine", engine),
        *("--tls-ca", str(certificates.authority), "--html", str(page)),
    )
    assert code == 0, result.reasons
    context = certificates.client_context()
    with server.connect() as plain, context.wrap_socket(plain, server_hostname="localhost") as own:
        cipher = own.cipher()
    assert cipher is not None
    name = f"{cipher[1]} {cipher[0]}"
    assert result.totals.tls_handshakes == {name: 4}
    assert result.stages[0].tls_handshakes == {name: 4}
    assert result.totals.tls == name
    assert name.encode() in page.read_bytes()


def test_different_versions_of_tls_are_told_apart(
    start_server: StartServer, certificates: Certificates
) -> None:
    newest = start_server("--listen", "tls://127.0.0.1:0", *certificates.options)
    plain = start_server()
    older = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    older.maximum_version = ssl.TLSVersion.TLSv1_2
    older.set_ciphers("ECDHE+AES256")
    older.load_cert_chain(certificates.cert, certificates.key)

    def behave(connection: socket.socket, _over: threading.Event) -> None:
        with older.wrap_socket(connection.dup(), server_side=True) as secured:
            while data := secured.recv(64):
                secured.sendall(data)

    with Service(behave) as service:
        old = f"tls://127.0.0.1:{service.port}"
        code, result = loaded(
            *("run", newest.url, old, plain.url, "-c", "9", "-n", "90", "--tls-insecure"),
        )
    assert code == 0, result.reasons
    handshakes = result.totals.tls_handshakes
    assert handshakes is not None
    assert {name.split()[0]: count for name, count in handshakes.items()} == {
        "TLSv1.3": 3,
        "TLSv1.2": 3,
    }
    by_target = [one.tls_handshakes for one in result.by_target]
    assert [list(one or ()) for one in by_target] == [[one] for one in sorted(handshakes)[::-1]] + [
        []
    ]
    assert by_target[2] is None
    assert result.totals.tls.count("(3 connections)") == 2
    _, without = loaded("run", "-c", "1", "-n", "1")
    assert (without.totals.tls_handshakes, without.totals.tls) == (None, "")
