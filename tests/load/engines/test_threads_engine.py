"""The threads engine in this process: what cannot be seen from outside."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from echo_client.addresses import resolve
from echo_core.endpoint import Endpoint
from echo_load.engines.recorder import Recorder
from echo_load.engines.share import Share
from echo_load.engines.threads import ThreadsEngine
from echo_load.plan.payload import HelloPayload
from echo_load.plan.plan import Plan
from support.misbehaving import Service, silent
from support.processes import DEADLINE, EchoServerProcess, until


def share_of(
    port: int, connections: int, *, in_flight: int = 8, connect_timeout: float = DEADLINE
) -> Share:
    target = f"tcp://127.0.0.1:{port}"
    plan = Plan(
        targets=(target,),
        engine="threads",
        connections=connections,
        duration=DEADLINE,
        timeout=DEADLINE,
        connect_timeout=connect_timeout,
        connects_in_flight=in_flight,
        reconnect=False,
        hello=True,
    )
    return Share.alone(plan, [resolve(Endpoint.parse(target))])


def engine_of(share: Share) -> ThreadsEngine:
    return ThreadsEngine(share, Recorder(share.timeline))


def start(engine: ThreadsEngine, seconds_ago: float = 0.0) -> None:
    """Open the gate, now or as if it had been some time ago."""
    gate_ns = time.monotonic_ns() - int(seconds_ago * 1e9)
    engine.recorder.start(gate_ns)
    engine.recorder.stage = 0
    engine.start(gate_ns)


def answered(engine: ThreadsEngine) -> int:
    """Round trips since the last time."""
    snapshot = engine.recorder.take(engine.counts())
    return sum(trips.count for trips in snapshot.response.values())


@pytest.fixture(autouse=True)
def restored_switch_interval() -> Iterator[None]:
    """The engine changes the switch interval, which suits a process of its own."""
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def engine(echo_server: EchoServerProcess) -> Iterator[ThreadsEngine]:
    engine = engine_of(share_of(echo_server.port, 20))
    yield engine
    engine.abort()
    assert engine.join(DEADLINE)


def client_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("conn-")]


@pytest.mark.slow
def test_a_named_daemon_thread_a_connection_and_nothing_sent_before_the_gate(
    engine: ThreadsEngine,
) -> None:
    engine.open()
    until(lambda: engine.settled, "all connections to be open")
    assert sorted(thread.name for thread in client_threads()) == [
        f"conn-{number:05d}" for number in range(1, 21)
    ]
    assert all(thread.daemon for thread in client_threads())
    counts = engine.counts()
    assert (counts.opened, counts.messages, counts.bytes_sent) == (20, 0, 0)
    assert engine.recorder.take(counts).measured[0].connect.count == 20

    start(engine)
    total = 0
    while total < 1000:
        total += answered(engine)
    engine.share.end_ns.value = 0
    assert engine.join(DEADLINE)
    assert engine.ended
    total += answered(engine)
    last = engine.counts()
    assert last.messages == sum(engine.messages_by_connection()) == total
    assert last.bytes_sent == last.bytes_received
    assert not last.errors
    assert not client_threads()


def test_abort_wakes_threads_that_wait_and_counts_nothing() -> None:
    with Service(silent) as service:
        engine = engine_of(share_of(service.port, 20))
        engine.open()
        until(lambda: engine.settled, "all connections to be open")
        start(engine)
        until(lambda: engine.counts().bytes_sent == 20 * len(b"hello 0"), "all to wait")
        engine.abort()
        assert engine.join(DEADLINE)
        counts = engine.counts()
    assert (counts.opened, counts.messages, counts.lost) == (20, 0, 0)
    assert not counts.errors


def test_what_is_overdue_is_counted() -> None:
    with Service(silent) as service:
        engine = engine_of(share_of(service.port, 5))
        engine.open()
        until(lambda: engine.settled, "all connections to be open")
        start(engine)
        until(lambda: engine.counts().bytes_sent == 5 * len(b"hello 0"), "all to wait")
        engine.abort(verdict="timeout")
        assert engine.join(DEADLINE)
        counts = engine.counts()
    assert (counts.lost, counts.errors) == (5, {"timeout": 5})


def test_connections_are_replaced_after_the_end_while_messages_are_overdue(
    echo_server: EchoServerProcess,
) -> None:
    share = share_of(echo_server.port, 2)
    plan = replace(share.plan, rate=20, churn=3, duration=1, reconnect=True)
    engine = engine_of(Share.alone(plan, share.targets))
    engine.open()
    until(lambda: engine.settled, "all connections to be open")
    engine.share.end_ns.value = time.monotonic_ns()
    start(engine, seconds_ago=1)
    assert engine.join(DEADLINE)
    counts = engine.counts()
    assert (counts.messages, counts.errors) == (20, {})
    # Three messages on each.
    assert counts.opened >= 7


def test_so_many_connects_are_in_flight_at_once() -> None:
    """Against a listener with a full backlog, connects stay in flight until they time out."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        filler = socket.create_connection(listener.getsockname())
        engine = engine_of(share_of(port, 10, in_flight=3, connect_timeout=0.2))
        most = 0

        def settled() -> bool:
            nonlocal most
            most = max(most, 3 - engine.control.connects._value)
            return engine.settled

        engine.open()
        until(settled, "all connects to have timed out")
        assert engine.counts().errors == {"connect_timeout": 10}
        assert engine.counts().failed == 10
        assert most == 3
        filler.close()


def test_threads_that_the_system_refuses_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit of processes or of memory may be reached."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("conn-"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    engine = engine_of(share_of(1, 5))
    engine.open()
    until(lambda: engine.settled, "all to be refused")
    assert engine.counts().errors == {"no_thread": 5}
    assert engine.ended


class BrokenPayload(HelloPayload):
    """A payload whose messages cannot be made."""

    def head(self, connection: int) -> bytes:
        raise ArithmeticError(f"connection {connection}")


def test_an_exception_in_a_thread_is_raised_where_the_generator_looks(
    echo_server: EchoServerProcess,
) -> None:
    engine = engine_of(replace(share_of(echo_server.port, 3), payload=BrokenPayload()))
    engine.open()
    until(lambda: engine.settled, "all connections to be open")
    start(engine)
    with pytest.raises(ArithmeticError, match="connection"):
        until(lambda: engine.ended, "it to be raised")
    engine.abort()
    assert engine.join(DEADLINE)
