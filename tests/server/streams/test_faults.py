"""Faults injected on purpose: each strikes as it should, is counted, and comes again."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo_core.errors import InvalidValueError
from echo_server.faults import KINDS, Fault, FaultPlan, Injection
from echo_server.metrics.counters import Counter
from support.certificates import make_certificates
from support.processes import (
    DEADLINE,
    SERVER,
    EchoServerProcess,
    StartServer,
    echoes,
    receive_exactly,
    reset,
    run,
    until,
)

ADMIN = ("--admin", "127.0.0.1:0")
UDP = ("--listen", "udp://127.0.0.1:0", *ADMIN)
MESSAGE = bytes(range(200))


def injected(server: EchoServerProcess, kind: str) -> float:
    return server.metric("faults_injected_total", kind=kind)


@given(st.sampled_from(list(KINDS.values())), st.integers(0, 1000), st.integers(1, 5000))
def test_printed_faults_are_parsed_back(kind: Counter, per_mille: int, milliseconds: int) -> None:
    timed = kind in {Counter.FAULT_DELAY, Counter.FAULT_STALL}
    fault = Fault(kind, per_mille / 1000, milliseconds / 1000 if timed else 0.0)
    read = Fault.parse(str(fault))
    assert read.kind is kind
    assert read.share == pytest.approx(fault.share)
    assert read.seconds == pytest.approx(fault.seconds)


def test_a_specification_with_every_fault() -> None:
    fault = Fault.parse("delay=50ms+-10ms@10%")
    assert fault == Fault(Counter.FAULT_DELAY, 0.1, 0.05, 0.01)
    assert str(fault) == "delay=50ms+-10ms@10%"
    assert Fault.parse("close") == Fault(Counter.FAULT_CLOSE)
    assert Fault.parse("stall=2s") == Fault(Counter.FAULT_STALL, 1.0, 2.0)


@given(st.text(max_size=30))
def test_any_text_is_a_fault_or_a_clear_error(text: str) -> None:
    with suppress(InvalidValueError):
        fault = Fault.parse(text)
        assert Fault.parse(str(fault)).kind is fault.kind


@given(st.binary(min_size=1, max_size=300), st.integers(0, 2**64 - 1))
def test_faults_have_the_described_effects(data: bytes, draw: int) -> None:
    corrupt = Injection(Fault(Counter.FAULT_CORRUPT), draw).corrupted(data)
    assert sum(a != b for a, b in zip(data, corrupt, strict=True)) == 1
    truncated = Injection(Fault(Counter.FAULT_TRUNCATE), draw).truncated(data)
    assert data.startswith(truncated)
    assert len(truncated) < len(data)
    delay = Injection(Fault(Counter.FAULT_DELAY, 1.0, 0.05, 0.01), draw)
    assert 0.04 - 1e-9 <= delay.seconds <= 0.06 + 1e-9


def test_faults_have_the_requested_share_and_are_reproducible() -> None:
    faults = [Fault.parse("corrupt@10%"), Fault.parse("delay=1ms@50%")]

    def strikes(seed: int) -> list[Injection | None]:
        plan = FaultPlan(faults, seed)
        return [plan.choose(connection, read) for connection in range(10) for read in range(1000)]

    first = strikes(7)
    assert strikes(7) == first
    assert strikes(8) != first
    kinds = [strike.fault.kind for strike in first if strike]
    # Of 10,000: 1,000 and half of the other 9,000, give or take six standard deviations.
    assert abs(kinds.count(Counter.FAULT_CORRUPT) - 1000) < 180
    assert abs(kinds.count(Counter.FAULT_DELAY) - 4500) < 300


def test_corrupt(start_server: StartServer) -> None:
    server = start_server("--fault", "corrupt@50%", *ADMIN)
    wrong = 0
    with server.connect() as connection:
        for _ in range(200):
            connection.sendall(MESSAGE)
            reply = receive_exactly(connection, len(MESSAGE))
            differences = sum(a != b for a, b in zip(reply, MESSAGE, strict=True))
            assert differences in {0, 1}
            wrong += differences
    assert injected(server, "corrupt") == wrong > 0
    server.wait_for_metric("faults_injected_total", wrong)
    until(
        lambda: server.metric("received_bytes_total") == server.metric("sent_bytes_total"),
        "all to be counted as sent",
    )


def ending(server: EchoServerProcess, share: Callable[[bytes], bool]) -> tuple[int, int]:
    """Connect and send anew until 50 connections were ended; counts them and the messages."""
    ended = messages = 0
    while ended < 50:
        with server.connect() as connection:
            while True:
                connection.sendall(MESSAGE)
                messages += 1
                reply = b""
                with suppress(ConnectionResetError):
                    while len(reply) < len(MESSAGE) and (piece := connection.recv(1000)):
                        reply += piece
                if reply != MESSAGE:
                    assert share(reply), reply
                    ended += 1
                    break
    return ended, messages


@pytest.mark.parametrize(
    ("kind", "share"),
    [
        ("close", lambda reply: reply == b""),
        ("reset", lambda reply: reply == b""),
        ("truncate", lambda reply: len(reply) < len(MESSAGE) and MESSAGE.startswith(reply)),
    ],
)
@pytest.mark.parametrize("tls", [False, True])
def test_faults_that_end_a_connection(
    start_server: StartServer,
    tmp_path: Path,
    kind: str,
    share: Callable[[bytes], bool],
    tls: bool,
) -> None:
    if tls:
        certificates = make_certificates(tmp_path / "certificates")
        server = start_server(
            "--listen", "tls://127.0.0.1:0", *certificates.options, "--fault", f"{kind}@20%", *ADMIN
        )
        context = certificates.client_context()
        plain_connect = server.connect
        server.connect = lambda host="127.0.0.1": context.wrap_socket(  # type: ignore[method-assign]
            plain_connect(host), server_hostname="localhost"
        )
    else:
        server = start_server("--fault", f"{kind}@20%", *ADMIN)
    ended, messages = ending(server, share)
    assert injected(server, kind) == ended
    server.wait_for_metric("connections_closed_total", ended, reason="fault_injected")
    server.wait_for_metric("reads_total", messages)
    assert "Traceback" not in server.log()


def test_a_reset_fault_sends_a_reset(start_server: StartServer) -> None:
    server = start_server("--fault", "reset")
    with server.connect() as connection:
        connection.sendall(MESSAGE)
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


@pytest.mark.slow
def test_delays(start_server: StartServer) -> None:
    server = start_server("--fault", "delay=100ms+-20ms@50%", *ADMIN)
    late = 0
    with server.connect() as connection:
        for _ in range(20):
            started = time.monotonic()
            assert echoes(connection, MESSAGE)
            late += time.monotonic() - started >= 0.079
    # On a busy machine others may be late too.
    assert 0 < injected(server, "delay") <= late


@pytest.mark.slow
def test_a_delayed_connection_is_not_idle(start_server: StartServer) -> None:
    server = start_server("--fault", "delay=4s", "--idle-timeout", "2s")
    with server.connect() as connection:
        assert echoes(connection, MESSAGE)


def test_a_stall_sends_the_reply_and_then_stops_reading(start_server: StartServer) -> None:
    server = start_server("--fault", "stall=200ms", *ADMIN)
    with server.connect() as connection:
        started = time.monotonic()
        for _ in range(3):
            assert echoes(connection, MESSAGE)
        assert time.monotonic() - started >= 0.39
    assert injected(server, "stall") == 3


def test_other_connections_are_served_while_one_is_delayed(start_server: StartServer) -> None:
    server = start_server("--fault", "delay=1h@50%", "--fault-seed", "1", "--drain-timeout", "0")
    held = 0
    while held < 10:
        with server.connect() as connection:
            connection.settimeout(0.05)
            connection.sendall(b"x")
            try:
                assert connection.recv(1) == b"x"
            except TimeoutError:
                held += 1
            # A delayed connection that is reset ends.
            reset(connection)
    server.process.terminate()
    assert server.wait() == 0
    assert "Traceback" not in server.log()


def test_one_worker_is_reproducible(start_server: StartServer) -> None:
    def outcome(*seed: str) -> list[bool]:
        server = start_server("--fault", "corrupt@30%", *seed)
        right = []
        for _ in range(5):
            with server.connect() as connection:
                for _ in range(40):
                    connection.sendall(MESSAGE)
                    right.append(receive_exactly(connection, len(MESSAGE)) == MESSAGE)
        return right

    first = outcome("--fault-seed", "5")
    assert outcome("--fault-seed", "5") == first
    assert outcome("--fault-seed", "6") != first


def datagrams(server: EchoServerProcess, count: int) -> list[bytes]:
    """Send numbered datagrams and gather what comes back; few enough for the socket to hold."""
    received = []
    with socket.socket(type=socket.SOCK_DGRAM) as sending:
        sending.connect(("127.0.0.1", server.port))
        for number in range(count):
            sending.send(b"%05d" % number + MESSAGE)
        sent = count
        until(lambda: server.metric("datagrams_received_total") == sent, "all to be received")
        drops = injected(server, "drop")
        expected = sent - drops + injected(server, "duplicate")
        until(lambda: server.metric("datagrams_sent_total") == expected, "all to be sent")
        sending.settimeout(0)
        with suppress(BlockingIOError):
            while True:
                received.append(sending.recv(65536))
    assert len(received) == expected
    return received


def numbers(received: list[bytes]) -> list[int]:
    return [int(one[:5]) for one in received]


def test_dropped_datagrams(start_server: StartServer) -> None:
    server = start_server(*UDP, "--fault", "drop@20%")
    received = datagrams(server, 100)
    assert injected(server, "drop") == 100 - len(received) > 0
    assert numbers(received) == sorted(set(numbers(received)))


def test_duplicated_datagrams(start_server: StartServer) -> None:
    server = start_server(*UDP, "--fault", "duplicate@20%")
    received = datagrams(server, 100)
    assert injected(server, "duplicate") == len(received) - 100 > 0
    assert sorted(set(numbers(received))) == list(range(100))


def test_reordered_datagrams(start_server: StartServer) -> None:
    server = start_server(*UDP, "--fault", "reorder@20%")
    received = datagrams(server, 100)
    assert sorted(numbers(received)) == list(range(100))
    overtaken = sum(
        later < earlier
        for earlier, later in zip(numbers(received), numbers(received)[1:], strict=False)
    )
    assert 0 < overtaken <= injected(server, "reorder")


def test_corrupted_and_truncated_datagrams(start_server: StartServer) -> None:
    server = start_server(*UDP, "--fault", "corrupt@20%", "--fault", "truncate@20%")
    with socket.socket(type=socket.SOCK_DGRAM) as sending:
        sending.settimeout(DEADLINE)
        sending.connect(("127.0.0.1", server.port))
        corrupt = truncated = 0
        for _ in range(200):
            sending.send(MESSAGE)
            reply = sending.recv(65536)
            if len(reply) < len(MESSAGE):
                assert MESSAGE.startswith(reply)
                truncated += 1
            elif reply != MESSAGE:
                corrupt += 1
    assert (injected(server, "corrupt"), injected(server, "truncate")) == (corrupt, truncated)
    assert corrupt > 0
    assert truncated > 0


def test_delayed_datagrams(start_server: StartServer) -> None:
    server = start_server(*UDP, "--fault", "delay=50ms@30%")
    assert sorted(numbers(datagrams(server, 100))) == list(range(100))
    assert injected(server, "delay") > 0


@pytest.mark.slow
@pytest.mark.parametrize("size", [0, 60_000])
def test_held_datagrams_take_bounded_memory(start_server: StartServer, size: int) -> None:
    """64 MiB, however small they are; what is more is dropped and counted."""
    server = start_server(*UDP, "--fault", "delay=1h")
    before = server.resident_bytes()
    with socket.socket(type=socket.SOCK_DGRAM) as sending:
        sending.connect(("127.0.0.1", server.port))

        def dropped() -> float:
            for _ in range(500):
                sending.send(bytes(size))
            return server.metric("datagrams_dropped_total", reason="fault_buffer_full")

        until(dropped, "datagrams to be dropped")
    grown = server.resident_bytes() - before
    assert 32 << 20 < grown < 96 << 20
    assert server.metric("datagrams_sent_total") == 0


@pytest.mark.slow
def test_released_datagrams_free_memory(start_server: StartServer) -> None:
    """More than is ever held at once passes in turn."""
    server = start_server(*UDP, "--fault", "delay=1ms")
    message = bytes(60_000)
    with socket.socket(type=socket.SOCK_DGRAM) as sending:
        sending.settimeout(DEADLINE)
        sending.connect(("127.0.0.1", server.port))
        for _ in range((64 << 20) // len(message) + 100):
            sending.send(message)
            assert sending.recv(65536) == message
    assert server.metric("datagrams_dropped_total", reason="fault_buffer_full") == 0


def test_each_kind_of_listener_has_its_own_faults(start_server: StartServer) -> None:
    server = start_server(
        *("--listen", "tcp://127.0.0.1:0", "--listen", "udp://127.0.0.1:0"),
        *("--fault", "drop", "--fault", "reset", *ADMIN),
    )
    udp_port = int(server.read_line().rpartition(":")[2])
    with server.connect() as connection:
        connection.sendall(MESSAGE)
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    with socket.socket(type=socket.SOCK_DGRAM) as sending:
        sending.sendto(MESSAGE, ("127.0.0.1", udp_port))
        until(lambda: injected(server, "drop") == 1, "it to be dropped")
    assert injected(server, "reset") == 1


def test_no_faults_are_counted_without_faults(start_server: StartServer) -> None:
    server = start_server(*ADMIN)
    with server.connect() as connection:
        assert echoes(connection)
    server.wait_for_metric("faults_injected_total", 0)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("", "is not a fault"),
        ("explode@1%", "'explode' is not a kind of fault; the kinds are delay, stall, reset"),
        ("RESET@1%", "is not a fault; write it as in reset@0.1%"),
        ("reset@", "'' is not a percentage"),
        ("reset@2", "'2' is not a percentage"),
        ("reset@200%", "'200%' is not a percentage"),
        ("reset=1s@1%", "reset takes no duration; write reset@10%"),
        ("delay@1%", "has no duration; write it as in delay=50ms@10%"),
        ("delay=@1%", "has no duration"),
        ("delay=soon@1%", "'soon' is not a duration"),
        ("delay=10ms+-@1%", "'' is not a duration"),
        ("delay=10ms+-20ms@1%", "the jitter is larger than the duration"),
        ("stall=200h@1%", "'200h' is longer than a week"),
        ("drop@1%", "drop@1% applies only to datagrams; add --listen"),
    ],
)
def test_bad_input(fault: str, said: str) -> None:
    result = run([*SERVER, "--fault", fault])
    lines = result.stderr.decode().splitlines()
    assert (result.returncode, len(lines)) == (2, 1)
    assert "--fault" in lines[0]
    assert said in lines[0]


def test_bad_input_with_datagrams() -> None:
    result = run([*SERVER, "--listen", "udp://127.0.0.1:0", "--fault", "stall=1s"])
    assert result.returncode == 2
    assert "stall=1s@100% applies only to connections; add --listen" in result.stderr.decode()
    result = run([*SERVER, "--fault-seed", "x"])
    assert result.returncode == 2
    assert "--fault-seed: 'x' is not a whole number from 0" in result.stderr.decode()
