from __future__ import annotations

import pickle
import tracemalloc
from collections.abc import Callable
from itertools import accumulate, product

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from echo_client.failure_kinds import FailureKind
from echo_load.plan.payload import (
    STAMP_BYTES,
    FixedPayload,
    HelloPayload,
    Payload,
    Stamp,
    StampedPayload,
    Tails,
)

connections = st.integers(1, 2**31)
sequences = st.integers(0, 2**63)
runs = st.integers(0, 2**32 - 1)


def stamped_payloads(least: int = 1, most: int = 300) -> st.SearchStrategy[StampedPayload]:
    """Generate payloads of one size and of many."""
    sizes = st.tuples(st.integers(least, most), st.integers(least, most)).map(sorted)
    one_size = st.integers(least, most).map(lambda size: [size, size])
    return st.builds(
        lambda size, run: StampedPayload(size[0], size[1], run), sizes | one_size, runs
    )


payloads: st.SearchStrategy[Payload] = st.one_of(
    st.builds(HelloPayload),
    st.builds(FixedPayload, st.binary(min_size=1, max_size=300)),
    stamped_payloads(),
)


@given(st.integers(1, 300), st.integers(0, 300), runs, connections, sequences)
def test_a_message_depends_on_its_numbers_only_and_has_the_requested_size(
    least: int, more: int, run: int, connection: int, sequence: int
) -> None:
    payload = StampedPayload(least, least + more, run)
    payload.message(connection + 1, sequence + 1)
    message = payload.message(connection, sequence)
    assert message == StampedPayload(least, least + more, run).message(connection, sequence)
    assert least <= len(message) <= least + more == payload.largest


@given(payloads, connections, st.integers(0, 10**15))
def test_a_message_is_its_head_and_its_tail(
    payload: Payload, connection: int, sequence: int
) -> None:
    message = payload.message(connection, sequence)
    assert 1 <= len(message) <= payload.largest
    if payload.tails is not None:
        assert payload.head(connection) + payload.tails[sequence] == message


@given(payloads, connections, st.integers(0, 10**15), st.integers(1, 40))
@example(StampedPayload(64, 64, 7), 3, 1000, 40)
@example(StampedPayload(64 << 10, 64 << 10, 7), 3, 1, 5)
def test_a_run_is_its_messages_one_after_the_other(
    payload: Payload, connection: int, first: int, count: int
) -> None:
    messages = [payload.message(connection, first + index) for index in range(count)]
    data, ends = payload.run(connection, first, count)
    assert data == b"".join(messages)
    assert list(ends) == list(accumulate(map(len, messages)))


def test_blocks_of_messages_take_bounded_memory() -> None:
    payload = StampedPayload(64, 64, 7)
    size = len(pickle.dumps(payload))
    for first in range(0, 1_000_000, 1000):
        payload.run(1, first, 10)
    assert sum(block.nbytes for block in payload._blocks.values()) <= 4 << 20
    assert len(pickle.dumps(payload)) == size


@pytest.mark.parametrize("least", [1, 22, 100])
def test_sizes_are_distributed_evenly_over_their_range(least: int) -> None:
    payload = StampedPayload(least, least + 4, run=1)
    sizes = [len(payload.message(*numbers)) for numbers in product(range(1, 11), range(100))]
    counts = [sizes.count(size) for size in range(least, least + 5)]
    assert sum(counts) == 1000
    assert min(counts) > 150


@given(stamped_payloads(STAMP_BYTES), connections, sequences, connections, sequences)
def test_no_two_messages_are_the_same(
    payload: StampedPayload, connection: int, sequence: int, other: int, later: int
) -> None:
    assume((connection, sequence) != (other, later))
    assert payload.message(connection, sequence) != payload.message(other, later)


@given(st.integers(8, STAMP_BYTES - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_short_messages_of_one_connection_differ(size: int, sequence: int, other: int) -> None:
    assume(sequence != other)
    payload = StampedPayload(size, size, run=1)
    assert payload.message(1, sequence) != payload.message(1, other)


def test_the_stress_test_sends_numbered_hellos() -> None:
    payload = HelloPayload()
    assert [payload.message(7, sequence) for sequence in (0, 1, 10)] == [
        b"hello 0",
        b"hello 1",
        b"hello 10",
    ]


@given(stamped_payloads(STAMP_BYTES), connections, sequences, st.integers(0, 300), st.binary())
def test_a_stamp_is_read_from_a_prefix_and_with_further_data(
    payload: StampedPayload, connection: int, sequence: int, missing: int, more: bytes
) -> None:
    message = payload.message(connection, sequence)
    first_part = message[: max(STAMP_BYTES, len(message) - missing)]
    for data in (message, first_part, message + more):
        assert payload.stamp(data) == Stamp(connection, sequence)
    assert payload.stamp(message[: STAMP_BYTES - 1]) is None


def test_changing_one_byte_never_makes_another_stamp() -> None:
    payload = StampedPayload(STAMP_BYTES, STAMP_BYTES, run=0x1234_5678)
    message = payload.message(3, 9)
    for position, change in product(range(STAMP_BYTES), range(1, 256)):
        changed = bytearray(message)
        changed[position] ^= change
        assert payload.diagnose(3, 9, bytes(changed)) == "corrupt", (position, change)


@given(stamped_payloads(STAMP_BYTES), connections, sequences, st.data())
@example(StampedPayload(64, 64, 7), 3, 9, None)
def test_one_changed_byte_is_always_corrupt(
    payload: StampedPayload, connection: int, sequence: int, data: st.DataObject | None
) -> None:
    changed = bytearray(payload.message(connection, sequence))
    position = data.draw(st.integers(0, len(changed) - 1)) if data else len(changed) - 1
    changed[position] ^= data.draw(st.integers(1, 255)) if data else 1
    assert payload.stamp(bytes(changed)) is None
    assert payload.diagnose(connection, sequence, bytes(changed)) == "corrupt"


@given(payloads, connections, sequences, st.data())
def test_a_prefix_is_truncated(
    payload: Payload, connection: int, sequence: int, data: st.DataObject
) -> None:
    message = payload.message(connection, sequence % 10**15)
    got = message[: data.draw(st.integers(0, len(message) - 1))]
    assert payload.diagnose(connection, sequence % 10**15, got) == "truncated"


@given(payloads, connections, st.integers(0, 10**15), st.data())
def test_a_prefix_with_a_changed_byte_is_corrupt(
    payload: Payload, connection: int, sequence: int, data: st.DataObject
) -> None:
    message = payload.message(connection, sequence)
    got = bytearray(message[: data.draw(st.integers(1, len(message)))])
    got[data.draw(st.integers(0, len(got) - 1))] ^= data.draw(st.integers(1, 255))
    assert payload.diagnose(connection, sequence, bytes(got)) == "corrupt"


@given(stamped_payloads(STAMP_BYTES), connections, sequences, sequences)
@example(StampedPayload(24, 60, 7), 1, 5, 4)
@example(StampedPayload(24, 60, 7), 1, 5, 6)
def test_another_message_of_the_connection_is_duplicated_or_reordered(
    payload: StampedPayload, connection: int, due: int, other: int
) -> None:
    assume(due != other)
    kind = "duplicated" if other < due else "reordered"
    whole = payload.message(connection, other)
    # From a stream comes as much as the expected message has, with the beginning of the next one.
    stream = whole + payload.message(connection, other + 1)
    for got in (whole, stream[: len(payload.message(connection, due))]):
        assert payload.diagnose(connection, due, got) == kind


@given(stamped_payloads(STAMP_BYTES), connections, connections, sequences, sequences)
def test_a_message_of_another_connection_is_foreign(
    payload: StampedPayload, connection: int, other: int, due: int, sequence: int
) -> None:
    assume(connection != other)
    got = payload.message(other, sequence)
    assert payload.diagnose(connection, due, got) == "foreign"
    assert payload.diagnose_surplus(connection, due, got) == "foreign"


@given(runs, runs, connections, sequences)
def test_a_message_of_another_run_has_no_stamp(
    run: int, other: int, connection: int, sequence: int
) -> None:
    assume(run != other)
    payload = StampedPayload(64, 64, run)
    got = StampedPayload(64, 64, other).message(connection, sequence)
    assert payload.stamp(got) is None
    assert payload.diagnose_surplus(connection, sequence, got) == "foreign"


SURPLUS: list[tuple[Callable[[Payload], bytes], FailureKind]] = [
    (lambda payload: payload.message(1, 5), FailureKind.DUPLICATED),
    (lambda payload: payload.message(1, 5)[:1], FailureKind.DUPLICATED),
    (lambda payload: payload.message(1, 5) * 2, FailureKind.DUPLICATED),
    (lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n", FailureKind.FOREIGN),
]


@pytest.mark.parametrize(("make", "kind"), SURPLUS)
@pytest.mark.parametrize(
    "payload",
    [
        HelloPayload(),
        FixedPayload(b"the same"),
        StampedPayload(9, 9, 1),
        StampedPayload(64, 64, 1),
        StampedPayload(24, 99, 1),
    ],
)
def test_surplus_bytes_are_classified(
    payload: Payload, make: Callable[[Payload], bytes], kind: FailureKind
) -> None:
    assert payload.diagnose_surplus(1, 5, make(payload)) == kind


def test_surplus_of_an_earlier_message_is_duplicated() -> None:
    payload = StampedPayload(24, 99, 1)
    assert payload.diagnose_surplus(1, 5, payload.message(1, 2)) == "duplicated"


@given(payloads, connections, st.lists(st.integers(0, 10**15), max_size=20))
def test_pickled_payloads_make_the_same_messages(
    payload: Payload, connection: int, numbers: list[int]
) -> None:
    before = len(pickle.dumps(payload))
    messages = [payload.message(connection, number) for number in numbers]
    # The tails made so far are not pickled.
    assert len(pickle.dumps(payload)) == before
    copy = pickle.loads(pickle.loads(pickle.dumps(pickle.dumps(payload))))
    assert [copy.message(connection, number) for number in numbers] == messages
    if payload.tails is not None:
        assert copy.tails == payload.tails


def test_tails_are_cached_up_to_a_limit() -> None:
    payload = StampedPayload(1 << 20, 1 << 20, run=1)
    assert payload.tails is not None
    tracemalloc.start()
    try:
        ends = [payload.tails[sequence][:64] for sequence in range(300)]
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 100 << 20
    kept = payload.tails[299]
    assert payload.tails[299] is kept
    assert [payload.tails[sequence][:64] for sequence in range(300)] == ends


def test_large_messages_are_not_cached() -> None:
    size = 8 << 20
    tails = Tails(lambda sequence: bytes([sequence]) * size, size)
    assert [tails[sequence][0] for sequence in range(5)] == list(range(5))
    assert len(tails) == 1
