"""Names with several addresses, some of which nobody answers at."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import get_args

import pytest

from echo_client.addresses import Address, resolve
from echo_client.connection import EchoConnection
from echo_client.errors import ConnectTimeoutError, NoSourceError, RefusedError
from echo_client.happy_eyeballs import best_first, connect_first
from echo_client.proxy_header import ProxyHeaders
from echo_core.endpoint import Endpoint
from echo_core.proxy_protocol import Version
from support.processes import DEADLINE, EchoServerProcess, StartServer

VERSIONS: tuple[Version, ...] = get_args(Version)


@contextmanager
def black_hole() -> Iterator[Address]:
    """An address that does not answer: the queue of its listener is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        # As many as the queue takes, and some whose attempts are dropped.
        for _ in range(4):
            filling = stack.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex(address)
        yield Address(socket.AF_INET, address)


@pytest.fixture
def refusing(unused_port: int) -> Address:
    return Address(socket.AF_INET, ("127.0.0.1", unused_port))


@pytest.fixture
def answering(echo_server: EchoServerProcess) -> Address:
    return Address(socket.AF_INET, ("127.0.0.1", echo_server.port))


@pytest.mark.slow
def test_the_first_address_that_answers_is_used(refusing: Address, answering: Address) -> None:
    with black_hole() as silent:
        for addresses in (
            [silent, answering],
            [refusing, answering],
            [silent, refusing, answering],
        ):
            # Long before the time that each gets has passed: the test would not wait so long.
            found = connect_first(addresses, 24 * 3600, None)
            with found.socket:
                assert found.address == answering
                assert found.socket.getpeername() == answering.sockaddr
                assert found.connect_ns > 0
            assert best_first(addresses, DEADLINE, None)[0] == answering
            assert set(best_first(addresses, DEADLINE, None)) == set(addresses)
            with EchoConnection.connect(addresses, timeout=DEADLINE, connect_timeout=3600) as one:
                assert one.round_trip(b"hello") == b"hello"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("scheme", ["tcp", "unix"])
def test_the_header_of_the_first_connection_names_no_client(
    start_server: StartServer, tmp_path: Path, version: Version, scheme: str
) -> None:
    url = "tcp://127.0.0.1:0" if scheme == "tcp" else f"unix://{tmp_path}/echo.sock"
    server = start_server("--listen", url, "--proxy-protocol", "--admin", "127.0.0.1:0")
    (address,) = resolve(Endpoint.parse(server.url))
    headers = ProxyHeaders.of(version, "10.0.0.0/8")
    assert headers is not None
    assert list(best_first([address, address], DEADLINE, None, headers)) == [address]
    server.wait_for_metric("connections_closed_total", 1)
    assert server.metric("connections_closed_total", reason="end_of_stream") == 1


def test_when_no_address_answers_the_last_failure_is_raised(refusing: Address) -> None:
    with pytest.raises(RefusedError):
        connect_first([refusing, refusing], DEADLINE, None)
    with black_hole() as silent:
        with pytest.raises(ConnectTimeoutError, match="no answer within 500ms"):
            connect_first([silent, refusing], 0.5, None)
        assert list(best_first([silent, refusing], 0.5, None)) == [silent, refusing]


def test_a_source_address_excludes_the_other_ip_version(answering: Address) -> None:
    other = Address(socket.AF_INET6, ("::1", 7, 0, 0))
    found = connect_first([other, answering], DEADLINE, "127.0.0.1")
    with found.socket:
        assert found.address == answering
    with pytest.raises(NoSourceError):
        connect_first([other, other], DEADLINE, "127.0.0.1")


def test_datagrams_are_sent_to_an_address_that_does_not_refuse_them(
    start_server: StartServer, unused_port: int
) -> None:
    server = start_server("--listen", "udp://127.0.0.1:0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        quiet = Address(socket.AF_INET, silent.getsockname(), "udp")
        refusing = Address(socket.AF_INET, ("127.0.0.1", unused_port), "udp")
        answering = Address(socket.AF_INET, ("127.0.0.1", server.port), "udp")
        addresses = [refusing, quiet, answering]
        assert list(best_first(addresses, DEADLINE, None)) == [answering, refusing, quiet]
        assert list(best_first([refusing, quiet], DEADLINE, None)) == [quiet, refusing]
        assert list(best_first([refusing, refusing], DEADLINE, None)) == [refusing, refusing]


def test_a_name_that_ends_in_a_dot(monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate is for the name without it."""

    def getaddrinfo(host: str, port: int, **_: object) -> list[object]:
        assert host == "echo.example."
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    (address,) = resolve(Endpoint.parse("tls://echo.example.:7"))
    assert address.host == "echo.example"
