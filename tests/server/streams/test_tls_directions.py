"""TLS writes in order to read and reads in order to write: nothing may spin or stand still."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from support.certificates import Certificates
from support.openssl import OpenSslPeer
from support.processes import EchoServerProcess, StartServer, until

LISTEN = ("--listen", "tls://127.0.0.1:0", "--admin", "127.0.0.1:0", "--log-level", "debug")
# With a share of nothing the faults' own echo set serves.
echo_sets = pytest.mark.parametrize("options", [(), ("--fault", "delay=1s@0%")])


def never_reads(server: EchoServerProcess) -> OpenSslPeer:
    """A client that asks for key updates until the server, which has to send them, is stuck."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    connection.connect(("127.0.0.1", server.port))
    peer = OpenSslPeer(connection)
    asked = 0
    while more := peer.request_key_updates():
        asked += more
    assert asked > 1000
    return peer


def processor_time_at_rest(server: EchoServerProcess) -> float:
    """Processor time, in seconds, that the server takes for two seconds of its own clock."""
    ticks = server.metric("hub_lag_seconds_count")
    before = server.metric("worker_cpu_seconds_total")
    until(lambda: server.metric("hub_lag_seconds_count") >= ticks + 8, "eight ticks")
    return server.metric("worker_cpu_seconds_total") - before


@pytest.mark.slow
@echo_sets
def test_key_updates_that_are_never_read(
    start_server: StartServer, certificates: Certificates, options: tuple[str, ...]
) -> None:
    server = start_server(*LISTEN, *certificates.options, *options)
    with closing(never_reads(server)) as peer, closing(OpenSslPeer(server.connect())) as other:
        # Who spins takes nearly all of it.
        assert processor_time_at_rest(server) < 0.5
        assert other.exchange(b"others are served") == b"others are served"
        assert peer.exchange(b"now it reads") == b"now it reads"
        assert peer.exchange(b"and goes on") == b"and goes on"
    assert "Traceback" not in server.log()


@pytest.mark.slow
@echo_sets
def test_a_connection_that_never_reads_key_updates_is_idle(
    start_server: StartServer, certificates: Certificates, options: tuple[str, ...]
) -> None:
    server = start_server(*LISTEN, *certificates.options, *options, "--idle-timeout", "3s")
    with closing(never_reads(server)):
        server.wait_for_metric("connections_closed_total", 1, reason="idle")
