"""Echoes of datagrams, as their senders see them."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from echo_server.datagrams.batch import is_supported
from support.ports import free_port
from support.processes import (
    DEADLINE,
    SERVER,
    EchoServerProcess,
    StartServer,
    echoes,
    run,
    until,
)

UDP = ("--listen", "udp://127.0.0.1:0", "--admin", "127.0.0.1:0")
# A fault that never strikes: datagrams are taken one by one.
ONE_BY_ONE = ("--fault", "delay=1s@0%")
both_kinds = pytest.mark.parametrize("kind", [(), ONE_BY_ONE], ids=["batched", "one-by-one"])


@contextmanager
def sender(
    server: EchoServerProcess, host: str = "127.0.0.1", port: int = 0
) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sending:
        sending.settimeout(DEADLINE)
        if port:
            sending.bind((host, port))
        sending.connect((host, server.port))
        yield sending


def round_trip(sending: socket.socket, message: bytes) -> bytes:
    sending.send(message)
    return sending.recv(65536)


@both_kinds
def test_datagrams_of_all_sizes_are_echoed_one_by_one(
    start_server: StartServer, kind: tuple[str, ...]
) -> None:
    server = start_server(*UDP, *kind)
    assert server.url.startswith("udp://127.0.0.1:")
    with sender(server) as sending:
        total = 0
        sizes = [0, 1, 63, 64, 1400, 1472, 1473, 9000, 32768, 65506, 65507]
        for size in sizes:
            message = os.urandom(size)
            assert round_trip(sending, message) == message
            total += size
    server.wait_for_metric("datagrams_received_total", len(sizes))
    server.wait_for_metric("datagrams_sent_total", len(sizes))
    server.wait_for_metric("received_bytes_total", total)
    server.wait_for_metric("sent_bytes_total", total)


@both_kinds
@pytest.mark.parametrize("host", ["[::1]", "[::]"])
def test_ipv6_datagrams_can_be_larger(
    start_server: StartServer, kind: tuple[str, ...], host: str
) -> None:
    """65,535 bytes, of which the header of UDP takes 8 (RFC 8200, section 3)."""
    server = start_server("--listen", f"udp://{host}:0", "--admin", "127.0.0.1:0", *kind)
    sizes = [65507, 65508, 65509, 65526, 65527]
    with sender(server, "::1") as sending:
        for size in sizes:
            message = os.urandom(size)
            assert round_trip(sending, message) == message
        # Those of a batch do not reach into each other.
        messages = [os.urandom(65527) for _ in range(2)]
        with server.paused():
            for message in messages:
                sending.send(message)
        assert [sending.recv(65536) for _ in messages] == messages
    assert server.metric("received_bytes_total") == sum(sizes) + sum(map(len, messages))


def test_linux_receives_many_datagrams_per_call() -> None:
    assert is_supported() == (sys.platform == "linux" and sys.byteorder == "little")


@both_kinds
def test_many_datagrams_per_wake_up(start_server: StartServer, kind: tuple[str, ...]) -> None:
    """All that a stopped server finds waiting, from several senders, each in order."""
    server = start_server(*UDP, *kind)
    with sender(server) as first, sender(server) as second:
        messages = [b"%d" % number * (number % 50 + 1) for number in range(100)]
        with server.paused():
            for message in messages:
                first.send(b"a" + message)
                second.send(b"b" + message)
        assert [first.recv(65536) for _ in messages] == [b"a" + one for one in messages]
        assert [second.recv(65536) for _ in messages] == [b"b" + one for one in messages]


@both_kinds
def test_replies_come_from_the_address_that_was_addressed(
    start_server: StartServer, kind: tuple[str, ...]
) -> None:
    """A connected socket takes only replies from the address that it sent to."""
    server = start_server("--listen", "udp://[::]:0", *kind)
    for host in ("127.0.0.1", "127.0.0.77", "::1"):
        with sender(server, host) as sending:
            assert round_trip(sending, b"from " + host.encode()) == b"from " + host.encode()
    server = start_server("--listen", "udp://0.0.0.0:0", *kind)
    for host in ("127.0.0.1", "127.0.0.77"):
        with sender(server, host) as sending:
            assert round_trip(sending, b"x") == b"x"


@both_kinds
def test_a_datagram_from_the_servers_own_port_is_dropped(
    start_server: StartServer, kind: tuple[str, ...]
) -> None:
    server = start_server(*UDP, *kind)
    with socket.socket(type=socket.SOCK_DGRAM) as forged, sender(server) as witness:
        forged.bind(("127.0.0.2", server.port))
        forged.sendto(b"echo yourself", ("127.0.0.1", server.port))
        assert round_trip(witness, b"still there?") == b"still there?"
        server.wait_for_metric("datagrams_dropped_total", 1, reason="own_port")
        forged.setblocking(False)
        with pytest.raises(BlockingIOError):
            forged.recv(100)
    server.wait_for_metric("datagrams_received_total", 2)
    server.wait_for_metric("datagrams_sent_total", 1)


@pytest.mark.parametrize("workers", ["1", "2"])
@both_kinds
def test_a_datagram_from_another_port_of_the_server_is_dropped(
    start_server: StartServer, kind: tuple[str, ...], workers: str
) -> None:
    """Two listeners of one server that were told of each other would never stop."""
    with socket.socket(type=socket.SOCK_DGRAM) as inherited:
        inherited.bind(("127.0.0.1", 0))
        other_port = inherited.getsockname()[1]
        number = inherited.fileno()
        server = start_server(
            *("--listen", "udp://127.0.0.1:0", "--listen", f"fd://{number}", "--workers", workers),
            *("--admin", "127.0.0.1:0", *kind),
            pass_fds=[number],
        )
        assert server.read_line() == f"listening udp://127.0.0.1:{other_port}"
        for source, target in ((server.port, other_port), (other_port, server.port)):
            with socket.socket(type=socket.SOCK_DGRAM) as forged:
                forged.bind(("127.0.0.2", source))
                forged.sendto(b"echo each other", ("127.0.0.1", target))
        until(lambda: server.metric("datagrams_received_total") == 2, "both to be received")
        assert server.metric("datagrams_dropped_total", reason="own_port") == 2
        with sender(server) as witness:
            assert round_trip(witness, b"still there?") == b"still there?"
        assert server.metric("datagrams_sent_total") == 1


def low_port() -> socket.socket:
    """A socket on a port below 1024, where this user may have one."""
    sending = socket.socket(type=socket.SOCK_DGRAM)
    for port in range(1023, 600, -1):
        try:
            sending.bind(("127.0.0.1", port))
        except PermissionError:
            sending.close()
            pytest.skip("ports below 1024 are not for this user")
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return sending
    raise AssertionError("no low port is free")


@pytest.mark.slow
@both_kinds
def test_low_ports_are_not_answered_unless_asked_for(
    start_server: StartServer, kind: tuple[str, ...]
) -> None:
    with low_port() as low:
        low.settimeout(DEADLINE)
        server = start_server(*UDP, *kind)
        with sender(server) as witness:
            with server.paused():
                witness.send(b"before")
                low.sendto(b"chargen", ("127.0.0.1", server.port))
                witness.send(b"after")
            assert (witness.recv(100), witness.recv(100)) == (b"before", b"after")
            server.wait_for_metric("datagrams_dropped_total", 1, reason="low_port")
            low.setblocking(False)
            with pytest.raises(BlockingIOError):
                low.recv(100)
            low.settimeout(DEADLINE)
        server = start_server(*UDP, *kind, "--udp-low-ports")
        low.sendto(b"chargen", ("127.0.0.1", server.port))
        assert low.recv(100) == b"chargen"


def test_datagrams_dropped_by_the_kernel_are_counted(start_server: StartServer) -> None:
    server = start_server(*UDP)
    with sender(server) as sending:
        count = 2000
        with server.paused():
            for _ in range(count):
                sending.send(bytes(60_000))

        def all_accounted_for() -> bool:
            dropped = server.metric("datagrams_dropped_total", reason="queue_full")
            return dropped > 0 and dropped + server.metric("datagrams_received_total") == count

        until(all_accounted_for, "received and dropped to make up what was sent")


@both_kinds
def test_replies_that_cannot_be_delivered(start_server: StartServer, kind: tuple[str, ...]) -> None:
    """The sender is gone: an ICMP error comes back, and hurts nobody."""
    server = start_server(*UDP, *kind)
    with sender(server) as witness:
        for _ in range(50):
            with server.paused(), sender(server) as gone:
                gone.send(b"and away")
        assert round_trip(witness, b"still there?") == b"still there?"
    assert "Traceback" not in server.log()


def test_a_second_server_on_the_port_fails_loudly(start_server: StartServer) -> None:
    server = start_server(*UDP)
    for workers in ("1", "2"):
        result = run([*SERVER, "--listen", server.url, "--workers", workers])
        assert result.returncode == 3
        assert result.stderr.decode() == (
            f"echo-server: error: cannot listen on {server.url}: Address already in use\n"
        )


@pytest.mark.slow
def test_workers_share_a_port(start_server: StartServer) -> None:
    server = start_server("--workers", "2", *UDP)
    for number in range(40):
        with sender(server) as sending:
            assert round_trip(sending, b"%d" % number) == b"%d" % number
    assert server.metric("datagrams_sent_total", worker="0") > 0
    assert server.metric("datagrams_sent_total", worker="1") > 0
    server.signal(signal.SIGHUP)
    server.wait_for_log("workers restarted")
    with sender(server) as sending:
        assert round_trip(sending, b"again") == b"again"


def test_udp_and_tcp_on_one_port(start_server: StartServer) -> None:
    port = free_port()
    server = start_server(
        "--listen", f"tcp://127.0.0.1:{port}", "--listen", f"udp://127.0.0.1:{port}"
    )
    with server.connect() as connection, sender(server) as sending:
        assert echoes(connection)
        assert round_trip(sending, b"x") == b"x"


def test_an_inherited_socket(start_server: StartServer) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        number = bound.fileno()
        server = start_server("--listen", f"fd://{number}", pass_fds=[number])
        assert server.url == f"udp://127.0.0.1:{bound.getsockname()[1]}"
    with sender(server) as sending:
        assert round_trip(sending, b"x") == b"x"


@both_kinds
def test_datagrams_waiting_when_the_drain_begins_are_echoed(
    start_server: StartServer, kind: tuple[str, ...]
) -> None:
    server = start_server("--listen", "udp://127.0.0.1:0", *kind)
    with sender(server) as sending:
        with server.paused():
            for number in range(100):
                sending.send(b"%d" % number)
            server.signal(signal.SIGTERM)
        assert [sending.recv(10) for _ in range(100)] == [b"%d" % one for one in range(100)]
    assert server.wait() == 0


def test_memory_stays_flat(start_server: StartServer) -> None:
    server = start_server(*UDP)
    with sender(server) as sending:

        def load() -> int:
            for number in range(5000):
                assert len(round_trip(sending, bytes(number % 3000))) == number % 3000
            return server.resident_bytes()

        first = load()
        assert load() - first < 1 << 20
