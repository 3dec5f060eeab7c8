"""Outages, losses and jitter that `echo-load watch` finds over UDP."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from support.datagram_services import datagram_service
from support.processes import (
    StartServer,
    until,
)
from support.watching import Watching

pytestmark = pytest.mark.slow


def test_single_lost_datagrams_are_counted_and_no_outage() -> None:
    numbers: Counter[object] = Counter()
    lost = []

    def answer(data: bytes, peer: object) -> bytes | None:
        numbers[peer] += 1
        # A lost datagram is followed by one of another port: never two of a connection in a row.
        if numbers[peer] != 3:
            return data
        lost.append(peer)
        return None

    with datagram_service(answer) as target:
        watching = Watching(target, timeout="5s")
        until(lambda: len(lost) >= 8, "losses")
        code, result = watching.stop_with_result()
    assert result.watch is not None
    assert (code, result.watch.outages, result.watch.availability) == (0, [], 1.0)
    totals = result.totals
    assert totals.errors == {"lost": len(lost)}
    assert totals.datagrams_sent == totals.messages + len(lost)
    assert totals.datagrams_received == totals.messages
    assert totals.loss_burst == 1
    assert totals.jitter_us is not None
    assert totals.jitter_us > 0
    assert [one.kind for one in result.evidence.failures] == ["lost"]


def test_losses_just_before_the_end_are_no_outage() -> None:
    """Nothing was sent after them that could have been answered."""
    silent = threading.Event()
    lost = []

    def answer(data: bytes, _peer: object) -> bytes | None:
        if not silent.is_set():
            return data
        lost.append(data)
        return None

    with datagram_service(answer) as target:
        watching = Watching(target, timeout="5s")
        silent.set()
        until(lambda: len(lost) > 4, "losses")
        code, result = watching.stop_with_result()
    assert result.watch is not None
    assert (code, result.watch.outages) == (0, [])
    assert result.totals.errors["lost"] >= 4


def test_datagrams_to_a_server_that_is_stopped_are_lost_in_bursts(
    start_server: StartServer,
) -> None:
    server = start_server("--listen", "udp://127.0.0.1:0")
    watching = Watching(server.url, timeout="2s")
    with server.paused():
        watching.wait_for("outage of")
    watching.wait_for("end of the outage")
    _, result = watching.stop_with_result()
    assert result.watch is not None
    (outage,) = result.watch.outages
    assert (outage.kind, outage.ongoing) == ("silent", False)
    assert set(outage.errors) == {"lost"}
    assert outage.seconds > 0.3
    assert result.totals.errors["lost"] >= outage.errors["lost"]


def test_a_part_of_a_datagram_is_wrong() -> None:
    faulty = threading.Event()

    def answer(data: bytes, _peer: object) -> bytes:
        return data[:40] if faulty.is_set() else data

    with datagram_service(answer) as target:
        watching = Watching(target)
        faulty.set()
        watching.wait_for("outage of")
        _, result = watching.stop_with_result()
    assert result.watch is not None
    assert {outage.kind for outage in result.watch.outages} == {"wrong"}
    reply = result.evidence.wrong_replies[0]
    assert (reply.kind, reply.offset, reply.received.size) == ("truncated", 40, 40)
