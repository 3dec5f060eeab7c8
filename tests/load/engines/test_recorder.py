from __future__ import annotations

from array import array

from hypothesis import given
from hypothesis import strategies as st

from echo_load.engines.recorder import Recorder, Snapshot, Times
from echo_load.measure.counts import Counts
from echo_load.measure.distributions import Measured
from echo_load.plan.pacing import Timeline
from echo_load.plan.stages import parse_stages

MS = 1_000_000
BEGIN = 5_000_000_000


def recorder(stages: str = "1/2s,2/2s", *, loop: bool = False) -> Recorder:
    """A recorder whose gate has opened."""
    parsed = parse_stages(stages, rates=False)
    made = Recorder(Timeline(parsed, loop=loop, seconds=1000))
    made.start(BEGIN)
    return made


def note(made: Recorder, due_ms: int, sent_ms: int | None, reply_ms: int) -> None:
    """Record a round trip, in ms since the first stage; without `sent_ms` of a closed loop."""
    sent = due_ms if sent_ms is None else sent_ms
    made.times.service.append((reply_ms - sent) * MS)
    if sent_ms is not None:
        made.times.response.append((reply_ms - due_ms) * MS)
    made.times.replies.append(BEGIN + reply_ms * MS)


def maxima(snapshot: Snapshot) -> dict[tuple[int, int], tuple[int, int]]:
    """The number of response times and the longest in ms, by stage and second."""
    return {
        key: (one.count, one.max_ns // MS) for key, one in snapshot.response.items() if one.count
    }


def test_a_closed_loop_is_sorted_by_stage_and_second() -> None:
    made = recorder()
    for due, reply in [(0, 5), (990, 1001), (1500, 1503), (1998, 2007), (2000, 2001), (3000, 3999)]:
        note(made, due, None, reply)
    snapshot = made.take(Counts(messages=6))
    # The stage is the one in which a message was due, the second the one of its reply.
    assert maxima(snapshot) == {(0, 0): (1, 5), (0, 1): (2, 11), (0, 2): (1, 9)} | {
        (1, 2): (1, 1),
        (1, 3): (1, 999),
    }
    assert snapshot.counts == Counts(messages=6)
    assert snapshot.last_reply == {0: 2.007, 1: 3.999}
    # In a closed loop, a message is due when it leaves.
    assert all(measured.service.count == 0 for measured in snapshot.measured.values())


def test_an_entry_stands_for_as_many_replies_as_its_count() -> None:
    made = recorder()
    for due, reply, count in [(0, 5, 3), (990, 1001, 2), (2000, 2001, 256)]:
        note(made, due, None, reply)
        made.times.counts.append(count)
    snapshot = made.take(Counts())
    assert maxima(snapshot) == {(0, 0): (3, 5), (0, 1): (2, 11), (1, 2): (256, 1)}
    assert snapshot.response[0, 1].sum_ns == 2 * 11 * MS


def test_an_open_loop_counts_from_when_messages_were_due() -> None:
    made = recorder()
    note(made, due_ms=1900, sent_ms=2300, reply_ms=2301)
    note(made, due_ms=2100, sent_ms=2100, reply_ms=2150)
    snapshot = made.take(Counts())
    assert maxima(snapshot) == {(0, 2): (1, 401), (1, 2): (1, 50)}
    service = {stage: one.service for stage, one in snapshot.measured.items()}
    assert {stage: one.max_ns // MS for stage, one in service.items()} == {0: 1, 1: 50}
    assert snapshot.measured[1].service_times is service[1]


def test_a_loop_comes_back_to_its_stages() -> None:
    made = recorder(loop=True)
    for due in (0, 2000, 4000, 6000, 8000):
        note(made, due, None, due + 1)
    found = maxima(made.take(Counts()))
    assert sorted(found) == [(0, 0), (0, 4), (0, 8), (1, 2), (1, 6)]
    assert set(found.values()) == {(1, 1)}


def test_what_is_noted_once_a_connection_belongs_to_the_stage_that_is_on() -> None:
    made = recorder()
    # Connections are opened before the gate, for the first stage.
    assert made.stage == -1
    made.times.connect.append(7)
    made.fold()
    made.stage = 1
    for times in (made.times.connect, made.times.handshake, made.times.first_byte):
        times.extend([1, 2])
    made.times.kernel.append(3)
    made.times.lateness.append(4)
    made.times.hub_lag.append(5)
    measured = made.take(Counts()).measured
    assert (measured[0].connect.max_ns, measured[0].connect.count) == (7, 1)
    later = measured[1]
    names = ("connect", "handshake", "first_byte", "kernel", "lateness", "hub_lag")
    assert [getattr(later, name).count for name in names] == [2, 2, 2, 1, 1, 1]


def test_what_was_handed_over_is_not_handed_over_again() -> None:
    made = recorder()
    note(made, 0, None, 5)
    made.fold()
    note(made, 1, None, 9)
    assert maxima(made.take(Counts())) == {(0, 0): (2, 8)}
    again = made.take(Counts())
    assert again.response == {}
    assert again.last_reply == {0: 0.009}


def test_the_stage_of_an_instant() -> None:
    made = Recorder(Timeline(parse_stages("1/2s,2/2s", rates=False), loop=False, seconds=4))
    assert made.stage_at(BEGIN) == -1
    made.start(BEGIN)
    instants = [BEGIN - 50 * MS, BEGIN - MS, BEGIN, BEGIN + 1999 * MS, BEGIN + 2000 * MS]
    assert [made.stage_at(instant) for instant in instants] == [-1, -1, 0, 0, 1]


@given(st.lists(st.tuples(st.integers(-1000, 6000), st.integers(0, 3000)), max_size=50))
def test_no_round_trip_is_lost_or_counted_twice(trips: list[tuple[int, int]]) -> None:
    made = recorder()
    for number, (due, milliseconds) in enumerate(trips):
        note(made, due, None, due + milliseconds)
        if number % 7 == 0:
            made.fold()
    response = made.take(Counts()).response
    measured = [trip for trip in trips if trip[0] >= 0]
    assert sum(one.count for one in response.values()) == len(measured)
    total_us = sum(one.mean_us * one.count for one in response.values())
    assert round(total_us / 1000) == sum(milliseconds for _, milliseconds in measured)


def test_a_round_trip_that_is_half_noted_stays() -> None:
    times, other = Times(), Times()
    times.service.extend([1, 2])
    times.response.extend([3, 4])
    times.replies.append(5)
    times.connect.append(6)
    times.move_to(other)
    assert (other.service, other.response, other.replies) == (
        array("q", [1]),
        array("q", [3]),
        array("q", [5]),
    )
    assert (times.service, times.response, times.replies) == (
        array("q", [2]),
        array("q", [4]),
        array("q"),
    )
    assert (other.connect, times.connect) == (array("q", [6]), array("q"))
    times.replies.append(7)
    times.move_to(other)
    assert (other.service, other.response) == (array("q", [1, 2]), array("q", [3, 4]))


def test_distributions_are_added() -> None:
    one, other = Measured(), Measured()
    for name in Measured.__slots__:
        getattr(other, name).record(array("q", [1, 2]))
    one.add(other)
    one.add(other)
    assert [getattr(one, name).count for name in Measured.__slots__] == [4] * 8
