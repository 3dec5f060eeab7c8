from __future__ import annotations

from collections import deque
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo_client.failure_kinds import FailureKind
from echo_load.engines.checking import Checked, UnderWay, check
from echo_load.plan.payload import FixedPayload, HelloPayload, Payload, StampedPayload

CONNECTION = 3
payloads: st.SearchStrategy[Payload] = st.one_of(
    st.builds(HelloPayload),
    st.builds(FixedPayload, st.binary(min_size=1, max_size=40)),
    st.builds(lambda size: StampedPayload(size, size, 7), st.integers(1, 40)),
    st.builds(StampedPayload, st.integers(1, 30), st.integers(30, 60), st.just(7)),
)


def sent(payload: Payload, count: int, first: int = 0) -> deque[UnderWay]:
    """Messages that have left."""
    numbers = range(first, first + count)
    return deque(UnderWay(n, payload.message(CONNECTION, n), n * 10, n * 10 + 1) for n in numbers)


def stream(under_way: deque[UnderWay]) -> bytes:
    return b"".join(one.message for one in under_way)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """The data, cut at these offsets."""
    bounds = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[begin:end] for begin, end in pairwise(bounds)]


def check_all(payload: Payload, under_way: deque[UnderWay], parts: list[bytes]) -> Checked:
    """Check a stream that comes in parts, as an engine does, until it is out of step."""
    last = under_way[-1].sequence
    whole = Checked([], [], b"", in_step=True)
    for part in parts:
        checked = check(payload, CONNECTION, last, under_way, whole.rest + part)
        whole.completed += checked.completed
        whole.wrong += checked.wrong
        whole.rest, whole.in_step = checked.rest, checked.in_step
        if not whole.in_step:
            break
    return whole


@given(payloads, st.integers(1, 8), st.integers(0, 10**6), st.lists(st.integers(0), max_size=20))
def test_a_right_stream_is_right_however_it_is_cut(
    payload: Payload, count: int, first: int, cuts: list[int]
) -> None:
    under_way = sent(payload, count, first)
    everything = list(under_way)
    checked = check_all(payload, under_way, pieces(stream(under_way), cuts))
    assert checked == Checked(everything, [], b"", in_step=True)
    assert not under_way


@given(payloads, st.integers(1, 8), st.lists(st.integers(0), max_size=20), st.data())
def test_a_wrong_byte_is_one_wrong_reply_and_the_stream_stays_in_step(
    payload: Payload, count: int, cuts: list[int], data: st.DataObject
) -> None:
    under_way = sent(payload, count)
    everything = list(under_way)
    received = bytearray(stream(under_way))
    received[data.draw(st.integers(0, len(received) - 1))] ^= data.draw(st.integers(1, 255))
    checked = check_all(payload, under_way, pieces(bytes(received), cuts))
    assert checked == Checked(everything, [FailureKind.CORRUPT], b"", in_step=True)


PAYLOAD = StampedPayload(24, 60, 7)
MESSAGES = [PAYLOAD.message(CONNECTION, number) for number in range(6)]


@pytest.mark.parametrize(
    ("received", "completed", "said"),
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
def test_a_stream_out_of_step(received: list[bytes], completed: int, said: str) -> None:
    under_way = sent(PAYLOAD, 6)
    due = list(under_way)
    checked = check(PAYLOAD, CONNECTION, 5, under_way, b"".join(received))
    assert checked == Checked(due[:completed], [said], b"", in_step=False)  # type: ignore[list-item]
    assert list(under_way) == due[completed:]


def test_a_wrong_reply_does_not_hide_what_is_surplus() -> None:
    under_way = sent(PAYLOAD, 1)
    wrong = bytes([MESSAGES[0][0] ^ 1]) + MESSAGES[0][1:]
    checked = check(PAYLOAD, CONNECTION, 0, under_way, wrong + MESSAGES[0])
    assert (checked.wrong, checked.in_step) == (["corrupt", "duplicated"], False)


@given(st.integers(1, 23))
def test_a_part_of_a_reply_is_kept_and_nothing_is_said_of_it(part: int) -> None:
    under_way = sent(PAYLOAD, 2)
    first, second = under_way
    data = first.message + second.message[:part]
    checked = check(PAYLOAD, CONNECTION, 1, under_way, data)
    assert checked == Checked([first], [], second.message[:part], in_step=True)
    assert list(under_way) == [second]
