from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo_client.addresses import Address
from echo_load.engines.checking import Run
from echo_load.engines.evidence import Evidence
from echo_load.engines.hub.connection import ConnectionSlot, HubConnection
from echo_load.engines.hub.datagrams import expire, note_round_trips, take
from echo_load.measure.counts import Counts
from echo_load.plan.payload import FixedPayload, Payload, StampedPayload

PAYLOAD = StampedPayload(24, 60, 7)
NUMBER = 3
ADDRESS = Address(socket.AF_INET, ("127.0.0.1", 7), "udp")


class Exchanged:
    """A connection on which datagrams leave, and come back or are lost.

    Message n leaves at the instant n.
    """

    def __init__(self, payload: Payload = PAYLOAD, first: int = 0) -> None:
        self.payload = payload
        self.connection = HubConnection.of(ConnectionSlot(NUMBER, first), ADDRESS, None)
        self.counts = Counts()
        self.evidence = Evidence(payload)

    def send(self, count: int) -> None:
        for _ in range(count):
            number = self.connection.sequence
            message = self.payload.message(NUMBER, number)
            self.connection.listed().add(Run.of_one(number, message, number))
            self.connection.sequence += 1

    def take(self, data: bytes) -> int | None:
        """Take a datagram, and return the number of the message that it answers."""
        found = take(self.payload, self.connection, data, self.counts, self.evidence)
        return None if found is None else found.sequence

    def come(self, *numbers: int) -> list[int | None]:
        return [self.take(self.payload.message(NUMBER, number)) for number in numbers]

    def expire(self, before: int) -> int:
        return expire(self.connection, before, self.counts)

    @property
    def waiting(self) -> list[int]:
        return [one.sequence for one in self.connection.listed().runs]

    @property
    def said(self) -> dict[str, int]:
        return {kind: count for kind, count in self.counts.errors.items() if count}

    @property
    def bursts(self) -> dict[int, int]:
        return {length: count for length, count in self.counts.bursts.items() if count}


Start = Callable[..., Exchanged]


@pytest.fixture
def start() -> Iterator[Start]:
    made: list[Exchanged] = []

    def begin(payload: Payload = PAYLOAD, *, sent: int = 0, first: int = 0) -> Exchanged:
        made.append(Exchanged(payload, first))
        made[-1].send(sent)
        return made[-1]

    yield begin
    for one in made:
        one.connection.close()


def test_replies_in_order_are_right(start: Start) -> None:
    one = start(sent=4)
    assert one.come(0, 1, 2, 3) == [0, 1, 2, 3]
    assert (one.said, one.waiting, one.connection.highest) == ({}, [], 3)


def test_one_that_is_expected_in_the_short_form(start: Start) -> None:
    one = start()
    connection = one.connection
    connection.expected, connection.sequence = PAYLOAD.message(NUMBER, 0), 1
    assert connection.waits
    assert one.come(0) == [0]
    assert not connection.waits


@pytest.mark.parametrize(
    ("order", "reordered"),
    [([1, 0], 1), ([2, 0, 1], 2), ([0, 3, 1, 2], 2), ([3, 2, 1, 0], 3), ([1, 0, 3, 2], 2)],
)
def test_a_reply_behind_a_later_one_is_reordered(
    start: Start, order: list[int], reordered: int
) -> None:
    one = start(sent=len(order))
    assert one.come(*order) == order
    assert one.said == {"reordered": reordered}
    assert one.waiting == []


def test_a_reply_that_comes_again_is_duplicated_and_answers_nothing(start: Start) -> None:
    one = start(sent=3)
    assert one.come(0, 0, 1, 0, 1) == [0, None, 1, None, None]
    assert (one.said, one.waiting) == ({"duplicated": 3}, [2])
    assert one.come(2, 2) == [2, None]
    assert one.said == {"duplicated": 4}


def test_datagrams_that_left_too_long_ago_are_lost(start: Start) -> None:
    one = start(sent=5)
    one.come(1)
    assert one.expire(3) == 2
    assert (one.said, one.waiting) == ({"lost": 2}, [3, 4])
    assert one.expire(3) == 0
    assert one.expire(99) == 2
    assert (one.said, one.waiting) == ({"lost": 4}, [])


def test_a_lost_one_that_comes_late_is_not_lost_any_more(start: Start) -> None:
    one = start(sent=4)
    one.expire(2)
    # Late, and the first of all to come.
    assert one.come(0) == [None]
    assert one.said == {"lost": 1, "timeout": 1}
    # Late, and behind a later one.
    assert one.come(2, 1) == [2, None]
    assert one.said == {"timeout": 1, "reordered": 1}
    # The late ones come again.
    assert one.come(0, 1) == [None, None]
    assert one.said == {"timeout": 1, "reordered": 1, "duplicated": 2}
    assert one.waiting == [3]


def test_only_the_latest_lost_ones_are_waited_for(start: Start) -> None:
    one = start(sent=2000)
    assert one.expire(2000) == 2000
    # The oldest is forgotten: it can no longer be told from a duplicate.
    assert one.come(0, 1999) == [None, None]
    assert one.said == {"lost": 1999, "duplicated": 1, "timeout": 1}


def test_a_changed_byte_is_corruption_of_the_oldest(start: Start) -> None:
    one = start(sent=2)
    changed = bytearray(PAYLOAD.message(NUMBER, 0))
    changed[-1] ^= 1
    assert one.take(bytes(changed)) == 0
    assert (one.said, one.waiting) == ({"corrupt": 1}, [1])


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_truncated_one_is_known_by_its_stamp(start: Start, number: int) -> None:
    one = start(StampedPayload(60, 60, 7), sent=3)
    assert one.take(one.payload.message(NUMBER, number)[:24]) == number
    assert one.said == {"truncated": 1}
    assert one.counts.wrong == 1
    assert number not in one.waiting


def test_one_cut_within_its_stamp_is_taken_for_the_oldest(start: Start) -> None:
    one = start(sent=2)
    assert one.take(PAYLOAD.message(NUMBER, 0)[:10]) == 0
    assert one.said == {"truncated": 1}
    # An empty datagram is a first part of any message.
    assert one.take(b"") == 1
    assert one.said == {"truncated": 2}


def test_one_with_more_behind_is_corrupt(start: Start) -> None:
    one = start(sent=2)
    assert one.take(PAYLOAD.message(NUMBER, 1) + b"x") == 1
    assert (one.said, one.waiting) == ({"corrupt": 1}, [0])


def test_a_message_of_another_connection_is_foreign_and_answers_nothing(start: Start) -> None:
    one = start(sent=1)
    assert one.take(PAYLOAD.message(4, 0)) is None
    assert (one.said, one.waiting) == ({"foreign": 1}, [0])
    assert one.counts.wrong == 0


def test_a_part_of_one_that_is_not_under_way_answers_nothing(start: Start) -> None:
    one = start(StampedPayload(60, 60, 7), sent=2)
    one.come(0)
    assert one.take(one.payload.message(NUMBER, 0)[:30]) is None
    assert (one.said, one.waiting) == ({"duplicated": 1}, [1])
    assert one.come(1) == [1]
    assert one.said == {"duplicated": 1}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "foreign"),
        (b"who is there?", "foreign"),
        (PAYLOAD.message(4, 0), "foreign"),
        (PAYLOAD.message(NUMBER, 0), "duplicated"),
        (PAYLOAD.message(NUMBER, 0)[:9], "duplicated"),
    ],
)
def test_what_comes_when_nothing_is_under_way(start: Start, data: bytes, said: str) -> None:
    one = start(sent=1)
    one.come(0)
    assert one.take(data) is None
    assert one.said == {said: 1}


def test_what_belongs_to_the_socket_before_is_no_reply(start: Start) -> None:
    one = start(sent=2, first=10)
    assert one.come(9, 10, 11) == [None, 10, 11]
    assert one.said == {"duplicated": 1}


def test_messages_that_are_all_the_same_answer_in_turns(start: Start) -> None:
    one = start(FixedPayload(b"ping"), sent=2)
    assert [one.take(b"ping"), one.take(b"pong"), one.take(b"ping")] == [0, 1, None]
    assert one.said == {"corrupt": 1, "duplicated": 1}


@given(st.integers(1, 12), st.data())
def test_every_datagram_is_counted_for_what_it_is(count: int, data: st.DataObject) -> None:
    """Some never come, the others in any order, some twice, some after they counted as lost."""
    numbers = range(count)
    arriving = data.draw(st.lists(st.sampled_from(numbers), max_size=2 * count))
    expired_at = data.draw(st.integers(0, len(arriving)))
    before = data.draw(st.integers(0, count))
    one = Exchanged()
    try:
        one.send(count)
        answered = one.come(*arriving[:expired_at])
        expired = one.expire(before)
        answered += one.come(*arriving[expired_at:])
    finally:
        one.connection.close()
    arrived = set(arriving)
    late = {n for n in numbers if n < before and n not in arriving[:expired_at]} & arrived
    in_time = [number for number in answered if number is not None]
    assert sorted(in_time) == sorted(arrived - late)
    assert one.counts.errors["duplicated"] == len(arriving) - len(arrived)
    assert one.counts.errors["lost"] == expired - len(late) == len(set(range(before)) - arrived)
    assert one.counts.errors["timeout"] <= len(late)
    out_of_order = sum(
        number < max(in_time[:index], default=-1) for index, number in enumerate(in_time)
    )
    assert one.counts.errors["timeout"] + one.counts.errors["reordered"] == out_of_order + len(late)
    assert set(one.said) <= {"duplicated", "lost", "timeout", "reordered"}
    lost = set(range(before)) - arrived
    runs = "".join("x" if number in lost else " " for number in numbers).split()
    assert one.bursts == Counter(map(len, runs))
    assert one.counts.longest_burst == max(map(len, runs), default=0)


def test_a_burst_of_losses_goes_on_until_a_reply(start: Start) -> None:
    one = start()
    one.send(9)
    one.come(3)
    assert one.expire(3) == 3
    assert one.bursts == {3: 1}
    assert one.expire(8) == 4
    assert one.bursts == {3: 1, 4: 1}
    # Late ones divide them.
    one.come(5, 1)
    assert one.bursts == {1: 3, 2: 1}
    one.expire(9)
    assert one.bursts == {1: 3, 3: 1}
    assert one.counts.longest_burst == 3


def test_the_jitter_is_that_of_the_rfc(start: Start) -> None:
    one = start()
    round_trips = [200_000, 360_000, 200_000, 200_000]
    for taken in round_trips:
        note_round_trips((one.connection,), (taken,), one.counts)
    # By hand: J is 10,000, then 10,000 + 150,000 / 16, then 15/16 of that.
    estimates = [10_000, 19_375, 18_164.0625]
    assert one.counts.jitters == 3
    assert one.counts.jitter_ns == pytest.approx(sum(estimates), abs=3)
    assert one.counts.jitter_us == pytest.approx(sum(estimates) / 3e3, abs=0.01)


def test_there_is_no_jitter_of_a_single_round_trip(start: Start) -> None:
    one = start()
    note_round_trips((one.connection,), (5,), one.counts)
    assert one.counts.jitter_us is None


@pytest.mark.parametrize("offset", range(60))
def test_a_corrupt_datagram_answers_the_message_that_it_resembles(
    start: Start, offset: int
) -> None:
    """Also if its stamp is corrupt, so that nothing else tells which one it was."""
    one = start(StampedPayload(60, 60, 7), sent=10)
    number = offset % 10
    message = bytearray(one.payload.message(NUMBER, number))
    message[offset] ^= 0x29
    assert one.take(bytes(message)) == number
    assert one.said == {"corrupt": 1}
    (kept,) = one.evidence.take().replies
    assert (kept.message, kept.offset) == (number, offset)


def test_a_datagram_unlike_any_message_answers_the_oldest(start: Start) -> None:
    one = start(StampedPayload(60, 60, 7), sent=3)
    assert one.take(b"HTTP/1.1 400 Bad Request".ljust(60)) == 0
    assert one.said == {"corrupt": 1}
