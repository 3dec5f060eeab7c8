from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable

import pytest

from echo_client.connection import EchoConnection, resolve
from echo_client.errors import (
    ClientError,
    ClosedError,
    ConnectTimeoutError,
    RefusedError,
    ReplyTimeoutError,
    ResetError,
    UnresolvedError,
)
from echo_core.endpoint import NetworkEndpoint
from support.misbehaving import (
    Service,
    doubled,
    drops_midway,
    in_pieces,
    late,
    resets_midway,
    silent,
    slow,
    wrong,
)
from support.processes import DEADLINE, EchoServerProcess, run


def connected(port: int, timeout: float = DEADLINE) -> EchoConnection:
    return EchoConnection.open(NetworkEndpoint("127.0.0.1", port), timeout=timeout)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 7, 16 * 1024, 16 * 1024 + 1, 8 << 20])
def test_round_trips_of_every_size(echo_server: EchoServerProcess, size: int) -> None:
    message = os.urandom(size)
    with connected(echo_server.port) as connection:
        for _ in range(3):
            assert connection.round_trip(message) == message
        assert connection.bytes_sent == connection.bytes_received == 3 * size


def test_a_reply_may_arrive_in_pieces() -> None:
    with Service(in_pieces) as service, connected(service.port) as connection:
        for message in (b"x", b"hello 0", bytes(range(256)), "你好".encode()):
            assert connection.round_trip(message) == message


def test_a_name_with_several_addresses_reaches_the_one_that_listens(
    echo_server: EchoServerProcess,
) -> None:
    addresses = [*resolve(NetworkEndpoint("::1", echo_server.port))]
    addresses += resolve(NetworkEndpoint("127.0.0.1", echo_server.port))
    with EchoConnection.connect(addresses, timeout=DEADLINE, connect_timeout=5) as connection:
        assert connection.round_trip(b"found") == b"found"


def several_round_trips(connection: EchoConnection) -> None:
    for _ in range(10):
        assert connection.round_trip(b"hello 0") == b"hello 0"


@pytest.mark.parametrize(
    ("behaviour", "timeout", "expected", "said"),
    [
        (drops_midway, DEADLINE, ClosedError, "closed the connection after 3 of 7 bytes"),
        (resets_midway, DEADLINE, ResetError, "reset the connection"),
        (silent, 0.05, ReplyTimeoutError, "0 of 7 bytes came back within 50ms"),
        (slow, 1.5, ReplyTimeoutError, "1 of 7 bytes came back within 1.5s"),
        (late(DEADLINE), 0.05, ReplyTimeoutError, "0 of 7 bytes"),
    ],
)
def test_each_failure_has_an_error_class(
    behaviour: Callable[[socket.socket, threading.Event], None],
    timeout: float,
    expected: type[ClientError],
    said: str,
) -> None:
    with (
        Service(behaviour) as service,
        connected(service.port, timeout=timeout) as connection,
        pytest.raises(expected, match=said),
    ):
        several_round_trips(connection)


def test_a_missing_large_reply_times_out_as_soon_as_a_small_one() -> None:
    with (
        Service(silent) as service,
        connected(service.port, timeout=0.05) as connection,
        pytest.raises(ReplyTimeoutError, match="0 of 1000000 bytes"),
    ):
        connection.round_trip(bytes(1_000_000))


def test_a_wrong_reply_is_returned_unchanged() -> None:
    with Service(wrong) as service, connected(service.port) as connection:
        assert connection.round_trip(b"hello") == b"idmmn"
    with Service(doubled) as service, connected(service.port) as connection:
        assert connection.round_trip(b"hello").startswith(b"hello")


def test_a_port_without_a_listener(unused_port: int) -> None:
    with pytest.raises(RefusedError, match=f"tcp://127.0.0.1:{unused_port}: Connection refused"):
        connected(unused_port)


def test_an_unknown_host() -> None:
    with pytest.raises(UnresolvedError, match=r"cannot connect to tcp://nosuchhost\.invalid:7"):
        EchoConnection.open(NetworkEndpoint("nosuchhost.invalid", 7))


def test_a_host_that_does_not_answer() -> None:
    """A full queue of a listener that accepts nothing drops what else wants to connect."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        endpoint = NetworkEndpoint("127.0.0.1", listener.getsockname()[1])
        with (
            EchoConnection.open(endpoint),
            pytest.raises(ConnectTimeoutError, match="no answer within 50ms"),
        ):
            EchoConnection.open(endpoint, connect_timeout=0.05)


def test_abort_wakes_up_waiting_threads() -> None:
    with Service(silent) as service, connected(service.port) as connection:
        errors: list[ClientError] = []

        def wait() -> None:
            try:
                connection.round_trip(b"hello")
            except ClientError as error:
                errors.append(error)

        waiting = threading.Thread(target=wait)
        waiting.start()
        while not connection.bytes_sent:
            os.sched_yield()
        connection.abort()
        waiting.join(DEADLINE)
        assert [type(error) for error in errors] == [ClosedError]


@pytest.mark.slow
def test_the_same_code_works_in_greenlets() -> None:
    """In a patched process: many connections wait at once in one thread, deadlines hold."""
    program = """
from gevent import monkey
monkey.patch_all()
import gevent, sys
from echo_client.connection import EchoConnection
from echo_client.errors import ReplyTimeoutError
from echo_core.endpoint import NetworkEndpoint
endpoint = NetworkEndpoint("127.0.0.1", int(sys.argv[1]))
def trip(number):
    with EchoConnection.open(endpoint, timeout=float(sys.argv[2])) as connection:
        try:
            return connection.round_trip(b"hello")
        except ReplyTimeoutError:
            return None
jobs = [gevent.spawn(trip, number) for number in range(50)]
gevent.joinall(jobs, raise_error=True)
print([job.value for job in jobs].count(None))
"""
    with Service(silent) as service:
        result = run([sys.executable, "-c", program, str(service.port), "0.2"])
    assert result.stdout.strip() == b"50", result.stderr
    with Service(in_pieces) as service:
        result = run([sys.executable, "-c", program, str(service.port), str(DEADLINE)])
    assert result.stdout.strip() == b"0", result.stderr
