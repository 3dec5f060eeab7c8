"""Which lost datagrams are an outage."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from itertools import pairwise

import pytest

from echo_load.limits.losses import DatagramLosses
from echo_load.limits.outages import NEW_CONNECTIONS, LoggedOutage, OutageLog

# Times of the simulated watch, in seconds.
TIMEOUT, INTERVAL, ROUND_TRIP = 1.0, 0.05, 0.001
CONNECTIONS = 10


def outages(is_lost: Callable[[int, float], bool], seconds: float) -> list[LoggedOutage]:
    """Return the outages of a watch whose datagrams are lost as a function of slot and time."""
    log = OutageLog(20)
    losses = DatagramLosses(log, TIMEOUT, 20)
    # When an outcome is known, slot, and when the probe was sent.
    events: list[tuple[float, int, float, bool]] = []

    def send(slot: int, at: float) -> None:
        lost = is_lost(slot, at)
        heapq.heappush(events, (at + (TIMEOUT if lost else ROUND_TRIP), slot, at, lost))

    for number in range(int(seconds / INTERVAL)):
        send(NEW_CONNECTIONS, (number + 0.5) * INTERVAL)
    for slot in range(CONNECTIONS):
        send(slot, slot * INTERVAL)
    while events:
        known, slot, at, lost = heapq.heappop(events)
        if lost:
            losses.lost(slot, at, known)
        else:
            losses.answered(slot, at, known)
        if slot != NEW_CONNECTIONS and known < seconds:
            send(slot, known + INTERVAL if lost else at + CONNECTIONS * INTERVAL)
    return log.outages


def test_single_losses_are_no_outage() -> None:
    last: dict[int, float] = {}
    chosen = random.Random(1)
    lost: list[float] = []

    def is_lost(slot: int, at: float) -> bool:
        # A third of all, but never two in a row on a kept connection.
        before = last.pop(slot, None) if slot != NEW_CONNECTIONS else None
        if before is not None or chosen.random() > 0.33:
            return False
        last[slot] = at
        lost.append(at)
        return True

    assert outages(is_lost, 30) == []
    assert len(lost) > 200


def test_two_consecutive_losses_of_a_connection_are_an_outage_of_it() -> None:
    (outage,) = outages(lambda slot, at: slot == 3 and 2 < at < 3.5, 10)
    # Sent at 2.15, and at 3.2 again.
    assert outage.begin == pytest.approx(2.15)
    assert outage.last_failure == pytest.approx(3.2)
    assert outage.end == pytest.approx(4.251)
    assert (outage.kind, outage.connections, outage.partial) == ("silent", 1, True)


def test_a_loss_between_two_replies_of_its_connection_is_no_part_of_an_outage() -> None:
    assert outages(lambda slot, at: slot == 3 and (2 < at < 2.4 or 4 < at < 4.4), 10) == []


@pytest.mark.parametrize("seconds", [0.4, 0.9, 0.96])
def test_a_shorter_silence_of_all_is_no_outage(seconds: float) -> None:
    assert outages(lambda _, at: 5 <= at < 5 + seconds, 15) == []


@pytest.mark.parametrize("seconds", [1.0, 1.02, 1.2, 1.5, 4.0])
def test_a_silence_of_all_is_an_outage_from_the_timeout_on(seconds: float) -> None:
    (outage,) = outages(lambda _, at: 5 <= at < 5 + seconds, 20)
    assert outage.begin == pytest.approx(5, abs=INTERVAL / 2)
    assert outage.end == pytest.approx(5 + seconds, abs=INTERVAL)
    assert (outage.kind, outage.partial) == ("silent", False)


def test_new_connections_that_get_no_reply_are_an_outage_of_those() -> None:
    (outage,) = outages(lambda slot, at: slot == NEW_CONNECTIONS and 2 < at < 6, 10)
    assert outage.begin == pytest.approx(2.025)
    assert outage.end == pytest.approx(6.026)
    assert (outage.kind, outage.connections, outage.partial) == ("silent", 0, True)


def test_two_silences_are_two_outages() -> None:
    found = outages(lambda _, at: 5 <= at < 7 or 12 <= at < 14, 20)
    assert len(found) == 2
    for before, after in pairwise(found):
        assert before.end is not None
        assert before.end < after.begin
