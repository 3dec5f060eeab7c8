from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo_client.failure_kinds import FailureKind
from echo_load.engines.checking import Checked, InFlight, Run
from echo_load.plan.payload import FixedPayload, HelloPayload, Payload, StampedPayload

CONNECTION = 3
payloads: st.SearchStrategy[Payload] = st.one_of(
    st.builds(HelloPayload),
    st.builds(FixedPayload, st.binary(min_size=1, max_size=40)),
    st.builds(lambda size: StampedPayload(size, size, 7), st.integers(1, 40)),
    st.builds(StampedPayload, st.integers(1, 30), st.integers(30, 60), st.just(7)),
)


def sent(payload: Payload, counts: list[int], first: int = 0) -> InFlight:
    """Messages that have left, in runs of `counts` messages."""
    in_flight = InFlight()
    for count in counts:
        data, ends = payload.run(CONNECTION, first, count)
        in_flight.add(Run(first, data, ends, sent_ns=first))
        first += count
    return in_flight


def stream(in_flight: InFlight) -> bytes:
    return b"".join(run.data for run in in_flight.runs)


def numbers(checked: Checked) -> list[int]:
    """The sequence numbers of the messages that were completed."""
    return [
        one.run.sequence + one.first + index
        for one in checked.completed
        for index in range(one.messages)
    ]


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """The data, cut at these offsets."""
    bounds = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[begin:end] for begin, end in pairwise(bounds)]


def check_all(payload: Payload, in_flight: InFlight, parts: list[bytes]) -> Checked:
    """Check a stream that comes in parts, as an engine does, until it is out of step."""
    newest = in_flight.runs[-1]
    last = newest.sequence + len(newest.ends) - 1
    whole = Checked()
    for part in parts:
        checked = in_flight.check(payload, CONNECTION, last, part)
        whole.completed += checked.completed
        whole.completed_wrong += checked.completed_wrong
        whole.wrong += checked.wrong
        whole.in_step = checked.in_step
        if not whole.in_step:
            break
    return whole


run_sizes = st.lists(st.integers(1, 6), min_size=1, max_size=4)
cut_places = st.lists(st.integers(0), max_size=20)


@given(payloads, run_sizes, st.integers(0, 10**6), cut_places)
def test_a_right_stream_is_right_however_it_is_cut(
    payload: Payload, counts: list[int], first: int, cuts: list[int]
) -> None:
    in_flight = sent(payload, counts, first)
    checked = check_all(payload, in_flight, pieces(stream(in_flight), cuts))
    assert numbers(checked) == list(range(first, first + sum(counts)))
    assert (checked.wrong, checked.in_step) == ([], True)
    assert (in_flight.count, in_flight.bytes, list(in_flight.runs)) == (0, 0, [])


@given(payloads, run_sizes, cut_places)
def test_what_is_in_flight_is_counted_to_the_byte(
    payload: Payload, counts: list[int], cuts: list[int]
) -> None:
    in_flight = sent(payload, counts)
    bytes_left, messages_left = len(stream(in_flight)), sum(counts)
    for part in pieces(stream(in_flight), cuts):
        checked = in_flight.check(payload, CONNECTION, sum(counts) - 1, part)
        bytes_left -= len(part)
        messages_left -= checked.messages
        assert (in_flight.bytes, in_flight.count) == (bytes_left, messages_left)
        complete = payload.run(CONNECTION, 0, sum(counts))[1]
        begun = len(stream(sent(payload, counts))) - bytes_left
        assert in_flight.partial == (begun not in (0, *complete))


@given(payloads, run_sizes, cut_places, st.data())
def test_a_wrong_byte_is_one_wrong_reply_and_the_stream_stays_in_step(
    payload: Payload, counts: list[int], cuts: list[int], data: st.DataObject
) -> None:
    in_flight = sent(payload, counts)
    received = bytearray(stream(in_flight))
    received[data.draw(st.integers(0, len(received) - 1))] ^= data.draw(st.integers(1, 255))
    checked = check_all(payload, in_flight, pieces(bytes(received), cuts))
    assert numbers(checked) == list(range(sum(counts)))
    assert (checked.wrong, checked.in_step) == ([FailureKind.CORRUPT], True)
    assert checked.completed_wrong == 1
    assert not in_flight.count


PAYLOAD = StampedPayload(24, 60, 7)
MESSAGES = [PAYLOAD.message(CONNECTION, number) for number in range(6)]


@pytest.mark.parametrize(
    ("received", "completed", "kind"),
    [
        # The third message is missing, duplicated, reordered, or another connection's.
        (MESSAGES[:2] + MESSAGES[3:], 2, "reordered"),
        ([*MESSAGES[:3], MESSAGES[2], *MESSAGES[3:]], 3, "duplicated"),
        ([*MESSAGES[:2], MESSAGES[3], MESSAGES[2], *MESSAGES[4:]], 2, "reordered"),
        ([*MESSAGES[:2], PAYLOAD.message(4, 2), *MESSAGES[2:]], 2, "foreign"),
        ([*MESSAGES, MESSAGES[5]], 6, "duplicated"),
        ([*MESSAGES, MESSAGES[0]], 6, "duplicated"),
        ([*MESSAGES, MESSAGES[5][:1]], 6, "duplicated"),
        ([*MESSAGES, PAYLOAD.message(4, 2)], 6, "foreign"),
        ([*MESSAGES, b"bye\r\n"], 6, "foreign"),
    ],
)
@pytest.mark.parametrize("counts", [[1, 1, 1, 1, 1, 1], [6], [2, 4]])
def test_a_stream_out_of_step(
    received: list[bytes], completed: int, kind: str, counts: list[int]
) -> None:
    in_flight = sent(PAYLOAD, counts)
    checked = in_flight.check(PAYLOAD, CONNECTION, 5, b"".join(received))
    assert numbers(checked) == list(range(completed))
    assert (checked.wrong, checked.in_step) == ([kind], False)
    assert in_flight.count == 6 - completed


def test_a_wrong_reply_does_not_hide_what_is_surplus() -> None:
    in_flight = sent(PAYLOAD, [1])
    wrong = bytes([MESSAGES[0][0] ^ 1]) + MESSAGES[0][1:]
    checked = in_flight.check(PAYLOAD, CONNECTION, 0, wrong + MESSAGES[0])
    assert (checked.wrong, checked.in_step) == (["corrupt", "duplicated"], False)


@given(st.integers(1, 23), st.sampled_from([[1, 1], [2]]))
def test_a_part_of_a_reply_is_kept_without_a_verdict(part: int, counts: list[int]) -> None:
    in_flight = sent(PAYLOAD, counts)
    checked = in_flight.check(PAYLOAD, CONNECTION, 1, MESSAGES[0] + MESSAGES[1][:part])
    assert (numbers(checked), checked.wrong, checked.in_step) == ([0], [], True)
    assert in_flight.partial


def test_a_wrong_reply_in_many_small_parts_is_named_once_it_is_complete() -> None:
    in_flight = sent(PAYLOAD, [3])
    wrong = MESSAGES[0] + bytes([MESSAGES[1][0] ^ 1]) + MESSAGES[1][1:] + MESSAGES[2]
    parts = [wrong[index : index + 1] for index in range(len(wrong))]
    checked = check_all(PAYLOAD, in_flight, parts)
    assert (numbers(checked), checked.wrong, checked.in_step) == ([0, 1, 2], ["corrupt"], True)


@given(payloads, run_sizes, st.data())
def test_a_run_is_taken_whole_only_if_exactly_its_replies_came(
    payload: Payload, counts: list[int], data: st.DataObject
) -> None:
    in_flight = sent(payload, counts)
    oldest, received = in_flight.runs[0], bytearray(in_flight.runs[0].data)
    before = in_flight.count, in_flight.bytes
    wrong = bytearray(received)
    wrong[data.draw(st.integers(0, len(wrong) - 1))] ^= data.draw(st.integers(1, 255))
    for other in (wrong, received[:-1], received + b"x", b""):
        assert in_flight.take_run(bytes(other)) is None
        assert (in_flight.count, in_flight.bytes) == before
    assert in_flight.take_run(bytes(received)) is oldest
    assert in_flight.count == before[0] - len(oldest.ends)
    assert in_flight.bytes == before[1] - len(received)
    assert oldest not in in_flight.runs


def test_a_run_is_not_taken_whole_once_a_part_of_its_replies_has_come() -> None:
    in_flight = sent(PAYLOAD, [4])
    data = in_flight.runs[0].data
    in_flight.check(PAYLOAD, CONNECTION, 3, data[:1])
    assert in_flight.take_run(data) is None
    in_flight = sent(PAYLOAD, [4])
    in_flight.check(PAYLOAD, CONNECTION, 3, b"\xff")
    assert in_flight.take_run(data) is None
    assert InFlight().take_run(b"") is None


def test_wrong_bytes_far_into_a_long_run_are_named() -> None:
    payload = StampedPayload(64, 64, 7)
    in_flight = sent(payload, [4096])
    received = bytearray(stream(in_flight))
    for number in (4000, 4001, 4095):
        received[number * 64 + 63] ^= 1
    checked = in_flight.check(payload, CONNECTION, 4095, bytes(received))
    assert checked.wrong == [FailureKind.CORRUPT] * 3
    assert (checked.messages, checked.completed_wrong, checked.in_step) == (4096, 3, True)
    assert [(one.first, one.messages) for one in checked.completed] == [
        *((0, 4000), (4000, 1), (4001, 1), (4002, 93), (4095, 1))
    ]
