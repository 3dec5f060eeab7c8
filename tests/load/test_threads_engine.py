"""The threads engine in this process: what cannot be seen from outside."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Iterator
from ctypes import c_int64

import pytest

from echo_client.connection import Address, resolve
from echo_core.endpoint import NetworkEndpoint
from echo_load.engines import Share
from echo_load.engines.threads import ThreadsEngine
from support.misbehaving import Service, silent
from support.processes import DEADLINE, EchoServerProcess, until


def share_of(port: int, connections: int, in_flight: int = 8) -> Share:
    return Share(
        addresses=tuple(resolve(NetworkEndpoint("127.0.0.1", port))),
        numbers=range(1, connections + 1),
        timeout=DEADLINE,
        connect_timeout=DEADLINE,
        connects_in_flight=in_flight,
        core=None,
        end_ns=c_int64(2**63 - 1),
    )


@pytest.fixture(autouse=True)
def restored_switch_interval() -> Iterator[None]:
    """The engine sets what suits a process of its own."""
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def engine(echo_server: EchoServerProcess) -> Iterator[ThreadsEngine]:
    engine = ThreadsEngine(share_of(echo_server.port, 20))
    yield engine
    engine.abort()
    assert engine.join(DEADLINE)


def answered(engine: ThreadsEngine) -> int:
    return sum(trips.count for trips in engine.snapshot().response.values())


def client_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("conn-")]


def test_a_named_daemon_thread_a_connection_and_nothing_sent_before_the_gate(
    engine: ThreadsEngine,
) -> None:
    engine.open()
    until(lambda: engine.settled, "all connections to be open")
    assert sorted(thread.name for thread in client_threads()) == [
        f"conn-{number:05d}" for number in range(1, 21)
    ]
    assert all(thread.daemon for thread in client_threads())
    snapshot = engine.snapshot()
    assert (snapshot.counts.opened, snapshot.counts.messages, snapshot.counts.bytes_sent) == (
        20,
        0,
        0,
    )
    assert snapshot.connect.count == 20

    engine.start(time.monotonic_ns())
    total = 0
    while total < 1000:
        total += answered(engine)
    engine.share.end_ns.value = 0
    assert engine.join(DEADLINE)
    assert engine.ended
    last = engine.snapshot()
    total += sum(trips.count for trips in last.response.values())
    assert last.counts.messages == total
    assert last.counts.bytes_sent == last.counts.bytes_received
    assert not last.counts.errors
    assert not client_threads()


def test_abort_wakes_threads_that_wait_and_counts_nothing() -> None:
    with Service(silent) as service:
        engine = ThreadsEngine(share_of(service.port, 20))
        engine.open()
        until(lambda: engine.settled, "all connections to be open")
        engine.start(time.monotonic_ns())
        until(lambda: engine.snapshot().counts.bytes_sent == 20 * len(b"hello 0"), "all to wait")
        engine.abort()
        assert engine.join(DEADLINE)
        counts = engine.snapshot().counts
    assert (counts.opened, counts.messages, counts.lost) == (20, 0, 0)
    assert not counts.errors


def test_what_is_overdue_is_counted() -> None:
    with Service(silent) as service:
        engine = ThreadsEngine(share_of(service.port, 5))
        engine.open()
        until(lambda: engine.settled, "all connections to be open")
        engine.start(time.monotonic_ns())
        until(lambda: engine.snapshot().counts.bytes_sent == 5 * len(b"hello 0"), "all to wait")
        engine.abort(verdict="timeout")
        assert engine.join(DEADLINE)
        counts = engine.snapshot().counts
    assert (counts.lost, counts.errors) == (5, {"timeout": 5})


def test_so_many_connects_are_in_flight_at_once() -> None:
    """Against a listener whose queue is full, connects stay in flight until they time out."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = Address(socket.AF_INET, listener.getsockname())
        filler = socket.create_connection(listener.getsockname())
        share = Share((address,), range(1, 11), DEADLINE, 0.2, 3, None, c_int64(0))
        engine = ThreadsEngine(share)
        most = 0

        def settled() -> bool:
            nonlocal most
            most = max(most, share.connects_in_flight - engine.connects._value)
            return engine.settled

        engine.open()
        until(settled, "all connects to have timed out")
        assert engine.snapshot().counts.errors == {"connect_timeout": 10}
        assert engine.snapshot().counts.failed == 10
        assert most == 3
        filler.close()


def test_threads_that_the_system_refuses_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a limit of processes or of memory is reached."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("conn-"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    engine = ThreadsEngine(share_of(1, 5))
    engine.open()
    until(lambda: engine.settled, "all to be refused")
    assert engine.snapshot().counts.errors == {"no_thread": 5}
    assert engine.ended
