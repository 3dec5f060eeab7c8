"""The source addresses of connections, and the errors of those that cannot be opened."""

from __future__ import annotations

import pickle
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from echo_client.connection import Address, EchoConnection, resolve
from echo_client.errors import (
    ConnectError,
    NoSourceError,
    UnresolvedError,
)
from echo_core.endpoint import DescriptorEndpoint, Endpoint, NetworkEndpoint, UnixEndpoint
from echo_core.errors import InvalidValueError
from support.misbehaving import Service
from support.processes import CLIENT, DEADLINE, EchoServerProcess, StartServer, run


def test_an_address_includes_the_transport() -> None:
    tcp = Address(socket.AF_INET, ("127.0.0.1", 7))
    unix = Address(socket.AF_UNIX, "/run/echo.sock", "unix")
    tls = Address(socket.AF_INET6, ("::1", 7, 0, 0), "tls", "localhost")
    assert (tcp.transport, tcp.host, str(tcp.endpoint)) == ("tcp", "", "tcp://127.0.0.1:7")
    assert (unix.transport, str(unix.endpoint)) == ("unix", "unix:///run/echo.sock")
    assert str(tls.endpoint) == "tls://[::1]:7"
    for address in (tcp, unix, tls):
        assert pickle.loads(pickle.dumps(address)) == address
    assert resolve(UnixEndpoint("/run/echo.sock")) == [unix]
    with pytest.raises(InvalidValueError, match="cannot connect to fd://3"):
        resolve(DescriptorEndpoint(3))


@pytest.mark.parametrize(
    ("target", "version"),
    [("[::1]:7", 4), ("tls://127.0.0.1:7", 6), ("udp://127.0.0.1:7", 6), ("unix:///x", 4)],
)
def test_an_ip_version_that_the_target_does_not_have(target: str, version: int) -> None:
    with pytest.raises(UnresolvedError, match=f"it has no IPv{version} address"):
        resolve(Endpoint.parse(target), version)


def test_an_ip_version_excludes_the_other(echo_server: EchoServerProcess) -> None:
    families = [address.family for address in resolve(NetworkEndpoint("localhost", 7), 4)]
    assert set(families) == {socket.AF_INET}
    localhost = f"localhost:{echo_server.port}"
    assert run([*CLIENT, "-4", localhost], stdin=b"hi").stdout == b"hi"


def peer_of(target: str, open_from: Callable[[Endpoint], EchoConnection]) -> str:
    peers: list[str] = []

    def note(connection: socket.socket, _over: object) -> None:
        peers.append(connection.getpeername()[0])
        connection.sendall(connection.recv(100))

    with Service(note) as service:
        endpoint = Endpoint.parse(target.replace("PORT", str(service.port)))
        with open_from(endpoint) as connection:
            assert connection.round_trip(b"hello") == b"hello"
            assert connection.family == socket.AF_INET
            assert (connection.connect_ns > 0, connection.handshake_ns) == (True, 0)
    return peers[0]


def test_a_source_address() -> None:
    from_there = partial(EchoConnection.open, source="127.0.0.9")
    for target in ("127.0.0.1:PORT", "localhost:PORT"):
        assert peer_of(target, EchoConnection.open) == "127.0.0.1"
        assert peer_of(target, from_there) == "127.0.0.9"


def test_a_source_address_of_datagrams(start_server: StartServer) -> None:
    server = start_server("--listen", "udp://127.0.0.1:0")
    endpoint = Endpoint.parse(server.url)
    with EchoConnection.open(endpoint, timeout=DEADLINE, source="127.0.0.9") as connection:
        assert connection.round_trip(b"hello") == b"hello"
        assert connection._socket.getsockname()[0] == "127.0.0.9"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("target", "source", "said"),
    [
        ("127.0.0.1:1", "192.0.2.1", "from 192.0.2.1: not an address of this machine"),
        ("udp://127.0.0.1:1", "192.0.2.1", "from 192.0.2.1: not an address of this machine"),
        ("127.0.0.1:1", "::1", "from ::1, which is an IPv6 address"),
        ("unix:///x", "127.0.0.1", "from 127.0.0.1, which is an IPv4 address"),
    ],
)
def test_an_unusable_source_address(target: str, source: str, said: str) -> None:
    with pytest.raises(NoSourceError, match=said) as caught:
        EchoConnection.open(Endpoint.parse(target), source=source)
    assert caught.value.kind == "no_source"


def test_a_source_that_is_not_an_address() -> None:
    with pytest.raises(InvalidValueError, match="'here' is not an IP address"):
        EchoConnection.open(Endpoint.parse("127.0.0.1:1"), source="here")


def test_no_address_at_all() -> None:
    with pytest.raises(ConnectError, match="there is no address"):
        EchoConnection.connect([], timeout=1, connect_timeout=1, source="127.0.0.1")


def test_tcp_info(
    echo_server: EchoServerProcess, start_server: StartServer, tmp_path: Path
) -> None:
    with EchoConnection.open(Endpoint.parse(echo_server.url), timeout=DEADLINE) as connection:
        connection.round_trip(b"hello")
        info = connection.tcp_info()
        assert info is not None
        assert info.retransmits == 0
        assert 0 < info.round_trip_us < DEADLINE * 1e6
    unix = start_server("--listen", f"unix://{tmp_path}/echo.sock")
    with EchoConnection.open(Endpoint.parse(unix.url), timeout=DEADLINE) as connection:
        assert connection.round_trip(b"hello") == b"hello"
        assert (connection.tcp_info(), connection.family) == (None, socket.AF_UNIX)


UNTIL_REFUSED = """
import sys
from echo_client.connection import EchoConnection
from echo_client.errors import ConnectError
from echo_core.endpoint import Endpoint
def refused(target, source=None):
    opened = []
    try:
        while True:
            opened.append(EchoConnection.open(Endpoint.parse(target), source=source))
    except ConnectError as error:
        print(len(opened), error.kind, error)
    for connection in opened:
        connection.close()
"""


def test_no_descriptor_is_left(echo_server: EchoServerProcess) -> None:
    program = f"""{UNTIL_REFUSED}
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
refused(sys.argv[1])
"""
    result = run([sys.executable, "-c", program, echo_server.url])
    assert b" no_descriptor cannot connect to " in result.stdout, result.stderr
    assert b": Too many open files; `ulimit -n` is 20\n" in result.stdout


def test_no_port_is_left() -> None:
    """In a network of its own, which has two ports and no address of IPv6."""
    program = f"""{UNTIL_REFUSED}
import fcntl, pathlib, socket, struct
with socket.socket() as any_socket:
    # SIOCSIFFLAGS, IFF_UP: netdevice(7)
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH14x", b"lo", 1))
pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("40000 40001")
pathlib.Path("/proc/sys/net/ipv6/conf/lo/disable_ipv6").write_text("1")
listener = socket.create_server(("127.0.0.1", 7), backlog=100)
bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
bound.bind(("127.0.0.1", 7))
for source in (None, "127.0.0.5"):
    for target in ("127.0.0.1:7", "udp://127.0.0.1:7"):
        refused(target, source)
refused("[::1]:7")
"""
    isolated = ["unshare", "--net", "--map-root-user", "--"]
    if subprocess.run([*isolated, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system gives out no network namespaces")
    result = run([*isolated, sys.executable, "-W", "ignore", "-c", program])
    lines = result.stdout.decode().splitlines()
    assert len(lines) == 5, (lines, result.stderr)
    for line in lines[:4]:
        assert line.startswith("2 no_port cannot connect to "), line
        assert "net.ipv4.ip_local_port_range (40000 to 40001) are in use; connect from" in line
    assert lines[4].startswith("0 unreachable cannot connect to tcp://[::1]:7: "), lines[4]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--source-ip", "here", "127.0.0.1:1"], "--source-ip: 'here' is not an IP address"),
        (["-4", "-6", "127.0.0.1:1"], "-4 and -6 cannot be combined; give one of them"),
        (["-4", "unix:///x"], "--ipv4 applies only to IP targets, not to unix:///x"),
        (["--source-ip", "::1", "unix:///x"], "--source-ip applies only to IP targets, not to"),
    ],
)
def test_bad_input(arguments: list[str], said: str) -> None:
    result = run([*CLIENT, *arguments], stdin=b"hi")
    (line,) = result.stderr.decode().splitlines()
    assert (result.returncode, result.stdout) == (2, b"")
    assert said in line


def test_a_source_address_of_the_command(echo_server: EchoServerProcess) -> None:
    result = run([*CLIENT, "--source-ip", "127.0.0.9", echo_server.url], stdin=b"hi")
    assert (result.returncode, result.stdout) == (0, b"hi")
    echo_server.wait_for_log('"peer": "127.0.0.9:')
    result = run([*CLIENT, "--source-ip", "192.0.2.1", echo_server.url], stdin=b"hi")
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
