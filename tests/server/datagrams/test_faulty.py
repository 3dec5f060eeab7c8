"""The accounting of datagrams that faults delay, with a hub that never runs: no timer fires."""

from __future__ import annotations

import itertools
import socket

from echo_server.datagrams.faulty import FaultyDatagramEcho
from echo_server.faults import Fault, FaultPlan
from echo_server.metrics.counters import Counter, CounterTable
from support.processes import DEADLINE


def plan_for(choices: str, fault: str) -> FaultPlan:
    """A plan that injects a fault into exactly the datagrams marked with an x."""
    for seed in itertools.count():
        plan = FaultPlan([Fault.parse(fault)], seed)
        if all((plan.choose(0, i) is not None) == (mark == "x") for i, mark in enumerate(choices)):
            return plan
    raise AssertionError


def exchanged(plan: FaultPlan, count: int, replies: int) -> tuple[object, ...]:
    """Echo some datagrams and close; return the replies and the numbers received, sent, dropped."""
    counters = CounterTable.create().row(0)
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        listener = socket.socket(type=socket.SOCK_DGRAM)
        listener.bind(("127.0.0.1", 0))
        listener.setblocking(False)
        echo = FaultyDatagramEcho(listener, counters, own_ports=(), low_ports=True, plan=plan)
        client.connect(listener.getsockname())
        client.settimeout(DEADLINE)
        for number in range(count):
            client.send(b"%d" % number)
        # On the loopback interface a datagram is queued before its send returns.
        assert echo.echo_batch() == count
        received = [client.recv(100) for _ in range(replies)]
        echo.close()
    return received, *(
        counters.cells[counter]
        for counter in (
            Counter.DATAGRAMS_RECEIVED,
            Counter.DATAGRAMS_SENT,
            Counter.DROPPED_SERVER_STOPPED,
        )
    )


def test_a_reordered_datagram_that_was_sent_is_not_counted_as_dropped() -> None:
    plan = plan_for("x.x.", "reorder@50%")
    assert exchanged(plan, 4, 4) == ([b"1", b"0", b"3", b"2"], 4, 4, 0)


def test_a_reordered_datagram_that_still_waits_is_counted_as_dropped() -> None:
    assert exchanged(plan_for("x.x", "reorder@50%"), 3, 2) == ([b"1", b"0"], 3, 2, 1)


def test_delayed_datagrams_are_counted_as_dropped() -> None:
    assert exchanged(plan_for("xx.", "delay=1s@50%"), 3, 1) == ([b"2"], 3, 1, 2)
