"""The client over UDP: a datagram there, a datagram back, or none."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from echo_client.connection import DatagramConnection, EchoConnection, resolve
from echo_client.errors import ClientError, ClosedError, RefusedError, ReplyTimeoutError
from echo_core.endpoint import Endpoint, NetworkEndpoint
from echo_core.errors import InvalidValueError
from support.processes import DEADLINE, EchoServerProcess, StartServer


@pytest.fixture
def mute() -> Iterator[socket.socket]:
    """A socket that receives and does not answer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        bound.settimeout(DEADLINE)
        yield bound


def to(bound: socket.socket, timeout: float = DEADLINE) -> EchoConnection:
    endpoint = NetworkEndpoint("127.0.0.1", bound.getsockname()[1], "udp")
    return EchoConnection.open(endpoint, timeout=timeout)


@pytest.mark.slow
@pytest.mark.parametrize("size", [0, 1, 1472, 1473, 20_000, 65_507])
def test_round_trips_of_every_size(udp_server: EchoServerProcess, size: int) -> None:
    message = os.urandom(size)
    with EchoConnection.open(Endpoint.parse(udp_server.url), timeout=DEADLINE) as connection:
        for _ in range(3):
            assert connection.round_trip(message) == message
        assert connection.bytes_sent == connection.bytes_received == 3 * size
        assert isinstance(connection, DatagramConnection)
        assert (connection.tcp_info(), connection.handshake_ns) == (None, 0)


def test_a_message_too_large_for_a_datagram_is_refused(udp_server: EchoServerProcess) -> None:
    with EchoConnection.open(Endpoint.parse(udp_server.url), timeout=DEADLINE) as connection:
        with pytest.raises(InvalidValueError, match=r"65508 bytes is too large: .* at most 65507"):
            connection.round_trip(bytes(65_508))
        with pytest.raises(InvalidValueError, match="no end of stream to send"):
            connection.end_of_sending()
        assert connection.round_trip(b"hello") == b"hello"
        assert connection.bytes_sent == 5


def test_ipv6_datagrams_can_be_larger(start_server: StartServer) -> None:
    server = start_server("--listen", "udp://[::1]:0")
    with EchoConnection.open(Endpoint.parse(server.url), timeout=DEADLINE) as connection:
        message = os.urandom(65_527)
        assert connection.round_trip(message) == message
        with pytest.raises(InvalidValueError, match=r"65528 bytes is too large: .* at most 65527"):
            connection.round_trip(bytes(65_528))


def test_a_missing_reply_times_out(mute: socket.socket) -> None:
    with (
        to(mute, timeout=0.05) as connection,
        pytest.raises(ReplyTimeoutError, match="no datagram arrived within 50ms"),
    ):
        connection.round_trip(b"hello")


def test_a_port_without_a_listener() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        connection = to(bound)
    with connection, pytest.raises(RefusedError, match="nothing listens"):
        connection.round_trip(b"hello")


def test_the_next_datagram_is_taken_as_the_reply(mute: socket.socket) -> None:
    with to(mute) as connection:
        connection.send(b"one")
        _, address = mute.recvfrom(100)
        for answer in (b"", b"shorter", b"one"):
            mute.sendto(answer, address)
        assert connection.round_trip(b"another") == b""
        assert connection.receive() == b"shorter"
        assert connection.receive() == b"one"


def test_abort_wakes_up_waiting_threads(mute: socket.socket) -> None:
    errors: list[ClientError] = []
    with to(mute) as connection:

        def wait() -> None:
            try:
                connection.round_trip(b"hello")
            except ClientError as error:
                errors.append(error)

        waiting = threading.Thread(target=wait)
        waiting.start()
        mute.recv(100)
        connection.abort()
        waiting.join(DEADLINE)
    assert [type(error) for error in errors] == [ClosedError]


def test_addresses_include_the_transport() -> None:
    (address,) = resolve(Endpoint.parse("udp://127.0.0.1:7"))
    assert (address.transport, address.host) == ("udp", "127.0.0.1")
    assert str(address.endpoint) == "udp://127.0.0.1:7"
