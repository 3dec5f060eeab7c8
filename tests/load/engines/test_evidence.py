"""The first failures of each kind: what is kept, and that it is the truth."""

from __future__ import annotations

import re
import socket
import threading
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo_client.errors import ClosedError, RefusedError, lost
from echo_client.failure_kinds import MISMATCHES, FailureKind
from echo_load.engines.checking import Difference, InFlight, Run
from echo_load.engines.evidence import (
    EXCERPT_BYTES,
    MOST_OF_A_KIND,
    Evidence,
    Excerpt,
    Found,
    FoundFailure,
    FoundReply,
    reason_of,
)
from echo_load.plan.payload import FixedPayload, StampedPayload
from echo_load.results.evidence import Evidence as Shown
from echo_load.results.evidence import WrongReply
from echo_load.results.result import Result
from support.certificates import make_certificates
from support.misbehaving import BAD_REQUEST, Service, answers_bad_request, resets_midway
from support.processes import StartServer, loaded

PAYLOAD = StampedPayload(64, 64, 7)
CONNECTION = 3
ENGINES = ("hub", "threads", "greenlets")


def answers_bad_request_and_resets(connection: socket.socket, _over: threading.Event) -> None:
    """Be a proxy that answers in short and closes with unread bytes, as after a bad request."""
    connection.recv(1)
    connection.sendall(BAD_REQUEST[:28])


def kept(*found: Difference) -> list[FoundReply]:
    evidence = Evidence(PAYLOAD)
    for one in found:
        evidence.add_reply(CONNECTION, one)
    return evidence.take().replies


def difference(due: bytes, got: bytes, kind: FailureKind = FailureKind.CORRUPT) -> Difference:
    return Difference(kind, 5, due, got)


@given(st.binary(min_size=1, max_size=200), st.data())
def test_the_bytes_around_the_first_that_differs(due: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(due) - 1))
    got = due[:at] + bytes([due[at] ^ 0xFF]) + due[at + 1 :]
    (one,) = kept(difference(due, got))
    assert (one.offset, one.message) == (at, 5)
    assert one.sent == Excerpt(len(due), due[one.begin :][:EXCERPT_BYTES])
    assert one.received == Excerpt(len(got), got[one.begin :][:EXCERPT_BYTES])
    assert one.begin <= at < one.begin + EXCERPT_BYTES
    assert len(one.sent.data) == min(len(due), EXCERPT_BYTES)
    assert one.explanation == f"1 of {len(due)} bytes differs: byte {at}"


@pytest.mark.parametrize(
    ("due", "got", "kind", "said", "offset"),
    [
        (b"abcd", b"wxyz", FailureKind.CORRUPT, "all 4 bytes differ", 0),
        (b"abcd", b"abyz", FailureKind.CORRUPT, "2 of 4 bytes differ, from byte 2 on", 2),
        (b"abcd", b"ab", FailureKind.TRUNCATED, "2 of 4 bytes came", 2),
        (b"abcd", b"xy", FailureKind.RESET, "2 of 4 bytes came; they differ from byte 0 on", 0),
        (b"", b"x", FailureKind.FOREIGN, "1 surplus byte", None),
        (
            PAYLOAD.message(CONNECTION, 5),
            PAYLOAD.message(CONNECTION, 2),
            FailureKind.DUPLICATED,
            "the reply to message 2 came instead",
            19,
        ),
        (
            PAYLOAD.message(CONNECTION, 5),
            PAYLOAD.message(8, 1),
            FailureKind.FOREIGN,
            "message 1 of connection 8 came instead",
            7,
        ),
        (
            PAYLOAD.message(CONNECTION, 5),
            StampedPayload(64, 64, 8).message(CONNECTION, 5),
            FailureKind.FOREIGN,
            "a message of another test came instead",
            3,
        ),
        (
            b"",
            PAYLOAD.message(CONNECTION, 5),
            FailureKind.DUPLICATED,
            "64 surplus bytes: the reply to message 5",
            None,
        ),
    ],
)
def test_what_is_wrong_in_words(
    due: bytes, got: bytes, kind: FailureKind, said: str, offset: int | None
) -> None:
    (one,) = kept(difference(due, got, kind))
    assert (one.explanation, one.offset) == (said, offset)


def test_a_few_of_each_kind_are_kept() -> None:
    wrong = [
        Difference(kind, number, b"due", b"got")
        for number in range(100)
        for kind in (FailureKind.CORRUPT, FailureKind.FOREIGN)
    ]
    found = kept(*wrong)
    assert Counter(one.kind for one in found) == {"corrupt": 5, "foreign": 5}
    assert {one.message for one in found} == set(range(MOST_OF_A_KIND))


def test_large_replies_are_cut() -> None:
    large = bytes(1_000_000)
    (one,) = kept(difference(large, large[:-1] + b"x"))
    assert (one.offset, one.begin) == (999_999, 999_968)
    assert one.received == Excerpt(1_000_000, bytes(31) + b"x")


def test_what_was_taken_is_not_kept_again() -> None:
    evidence = Evidence(PAYLOAD)
    for _ in range(3):
        evidence.add_reply(CONNECTION, difference(b"due", b"got"))
        evidence.add_failure(CONNECTION, FailureKind.RESET, None, "reset")
        found = evidence.take()
    assert len(found.replies) == 1
    assert found.failures == []
    for _ in range(9):
        evidence.add_reply(CONNECTION, difference(b"due", b"got"))
    assert len(evidence.take().replies) == MOST_OF_A_KIND - 3


def test_the_earliest_of_all_generators_are_kept() -> None:
    def reply(at_ns: int) -> FoundReply:
        nothing = Excerpt(0, b"")
        return FoundReply("corrupt", at_ns, 0, at_ns, 0, 0, nothing, nothing, "")

    together = Found()
    together.add(Found([reply(at) for at in (20, 40, 60, 80, 100)]))
    together.add(Found([reply(at) for at in (10, 30, 50, 70, 90)]))
    assert [one.at_ns for one in together.replies] == [10, 20, 30, 40, 50]
    for at, kind in ((9, "reset"), (3, "reset"), (5, "closed")):
        together.add(Found(failures=[FoundFailure(kind, 1, None, at, "")]))
    assert [(one.kind, one.at_ns) for one in together.failures] == [("reset", 3), ("closed", 5)]


def test_reasons_have_the_text_of_the_system() -> None:
    reset = ConnectionResetError(104, "Connection reset by peer")
    pipe = BrokenPipeError(32, "Broken pipe")
    assert reason_of(lost(reset), reset) == (
        "the server reset the connection (Connection reset by peer)"
    )
    assert reason_of(lost(pipe), pipe) == "the server reset the connection (Broken pipe)"
    broken = OSError(71, "Protocol error")
    assert reason_of(lost(broken), broken) == "the connection broke: Protocol error"
    assert reason_of(RefusedError("cannot connect"), reset) == "cannot connect"
    assert reason_of(ClosedError("the server closed the connection")) == (
        "the server closed the connection"
    )


@given(st.data())
def test_a_part_of_a_reply_belongs_to_the_message_that_is_due(data: st.DataObject) -> None:
    """However the bytes come, and whether they are right or wrong."""
    messages = data.draw(st.integers(1, 5))
    whole, ends = PAYLOAD.run(CONNECTION, 10, messages)
    come = data.draw(st.integers(0, len(whole) - 1))
    stream = whole[:come]
    if come % 64 and data.draw(st.booleans()):
        stream = stream[:-1] + bytes([stream[-1] ^ 1])
    in_flight = InFlight([Run(10, whole, ends, 0)])
    cut = data.draw(st.integers(0, come))
    for part in (stream[:cut], stream[cut:]):
        in_flight.check(PAYLOAD, CONNECTION, 9 + messages, part)
    begun = in_flight.begun(FailureKind.TRUNCATED)
    answered, size = divmod(come, 64)
    assert in_flight.oldest == 10 + answered
    if size:
        message = PAYLOAD.message(CONNECTION, 10 + answered)
        assert begun == Difference(
            FailureKind.TRUNCATED, 10 + answered, message, stream[64 * answered :]
        )
    else:
        assert begun is None


@given(st.data())
def test_the_message_whose_reply_is_wrong_is_named(data: st.DataObject) -> None:
    """However the bytes come, and wherever in a run the message is."""
    messages = data.draw(st.integers(1, 8))
    whole, ends = PAYLOAD.run(CONNECTION, 10, messages)
    at = data.draw(st.integers(0, len(whole) - 1))
    stream = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
    in_flight = InFlight([Run(10, whole, ends, 0)])
    cut = data.draw(st.integers(0, len(whole)))
    found = [
        one
        for part in (stream[:cut], stream[cut:])
        for one in in_flight.check(PAYLOAD, CONNECTION, 9 + messages, part).differences
    ]
    number, offset = divmod(at, 64)
    got = stream[64 * number : 64 * (number + 1)]
    due = PAYLOAD.message(CONNECTION, 10 + number)
    assert found == [Difference(FailureKind.CORRUPT, 10 + number, due, got)]
    assert kept(*found)[0].offset == offset


def true(result: Result) -> Shown:
    """The evidence of a result, checked against what its messages must be."""
    errors, evidence = result.totals.errors, result.evidence
    by_kind = Counter(one.kind for one in evidence.wrong_replies)
    assert set(by_kind) | {one.kind for one in evidence.failures} <= set(errors)
    for kind, count in by_kind.items():
        assert count <= min(errors[kind], MOST_OF_A_KIND)
        if kind in MISMATCHES:
            assert count == min(errors[kind], MOST_OF_A_KIND)
    # Every kind has its reason, either its bytes or a text.
    assert set(by_kind) | {one.kind for one in evidence.failures} == set(errors)
    for earlier, later in pairwise(evidence.wrong_replies):
        assert earlier.at <= later.at
    for one in evidence.wrong_replies:
        assert one.target == result.targets[(one.connection - 1) % len(result.targets)]
        assert len(one.sent.data) <= EXCERPT_BYTES >= len(one.received.data)
        if one.sent.size:
            assert_stamped(one)
    return evidence


def assert_stamped(one: WrongReply) -> None:
    """Check that what should have come has the connection and the number of its message."""
    fields = {4: (one.connection, 4), 12: (one.message or 0, 8)}
    for offset, (value, size) in fields.items():
        if one.begin <= offset and offset + size <= one.begin + len(one.sent.data):
            begin = offset - one.begin
            assert int.from_bytes(one.sent.data[begin : begin + size]) == value


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("pacing", [(), ("--pipeline", "4"), ("-r", "2000")])
def test_a_proxy_that_answers_bad_request(engine: str, pacing: tuple[str, ...]) -> None:
    with Service(answers_bad_request) as proxy:
        _, result = loaded(
            *("run", proxy.target, "-c", "3", "-n", "60", "--engine", engine, *pacing),
            *("--processes", "2"),
        )
    assert result.totals.errors == {"corrupt": 60}
    evidence = true(result)
    assert len(evidence.wrong_replies) == MOST_OF_A_KIND
    for one in evidence.wrong_replies:
        assert (one.received.size, one.begin) == (64, 0)
        assert one.received.data == BAD_REQUEST[:EXCERPT_BYTES]
        assert one.received.text == r"HTTP/1.1 400 Bad Request\r\nServer"
        assert one.seconds is not None
        assert 0 <= one.seconds < result.totals.seconds
    # Each connection, or each run of a pipeline, begins with its first message.
    assert evidence.wrong_replies[0].message == 0
    assert evidence.failures == ()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_part_of_an_answer_before_a_reset(engine: str) -> None:
    with Service(answers_bad_request_and_resets) as proxy:
        _, result = loaded(
            *("run", proxy.target, "-c", "1", "-n", "1", "--engine", engine, "--no-reconnect")
        )
    assert result.totals.errors == {"reset": 1}
    (reply,) = true(result).wrong_replies
    assert reply.received.data == BAD_REQUEST[:28]
    assert reply.explanation == "28 of 64 bytes came; they differ from byte 0 on"
    (failure,) = result.evidence.failures
    assert failure.reason == "the server reset the connection (Connection reset by peer)"
    assert (failure.connection, failure.message) == (1, 0)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("pipeline", ["1", "8"])
def test_faults_of_the_server(start_server: StartServer, engine: str, pipeline: str) -> None:
    server = start_server("--fault", "corrupt@3%", "--fault", "truncate@3%", "--fault", "reset@3%")
    _, result = loaded(
        *("run", server.url, "-c", "4", "-n", "1000", "--engine", engine),
        *("--pipeline", pipeline),
    )
    evidence = true(result)
    by_kind = evidence.replies_by_kind()
    assert {"corrupt", "truncated"} <= set(by_kind)
    for one in by_kind["corrupt"]:
        # The server changes one byte of what it has read at once.
        assert one.offset is not None
        assert one.explanation == f"1 of 64 bytes differs: byte {one.offset}"
        differing = [
            one.begin + index
            for index, (sent, came) in enumerate(zip(one.sent.data, one.received.data, strict=True))
            if sent != came
        ]
        assert differing == [one.offset]
    for one in by_kind["truncated"]:
        assert one.received.size == one.offset
        assert one.explanation == f"{one.received.size} of 64 bytes came"
    reasons = {one.kind: one.reason for one in evidence.failures}
    assert reasons["truncated"] == "the server closed the connection"
    assert "(Connection reset by peer)" in reasons["reset"]


@pytest.mark.slow
def test_faults_of_the_server_over_udp(start_server: StartServer) -> None:
    faults = ("corrupt@3%", "duplicate@3%", "reorder@3%", "drop@3%")
    server = start_server(
        *("--listen", "udp://127.0.0.1:0"), *(word for one in faults for word in ("--fault", one))
    )
    _, result = loaded(
        *("run", server.url, "-c", "2", "-n", "2000", "--pipeline", "4", "--timeout", "200ms")
    )
    evidence = true(result)
    by_kind = evidence.replies_by_kind()
    assert {"corrupt", "duplicated", "reordered"} <= set(by_kind)
    # Also where the stamp is corrupt, and several messages are in flight.
    for one in by_kind["corrupt"]:
        assert one.explanation == f"1 of 64 bytes differs: byte {one.offset}"
    for one in by_kind["reordered"]:
        later = re.fullmatch(r"it came .*after the reply to message (\d+)", one.explanation)
        assert later is not None
        assert one.message is not None
        assert int(later[1]) > one.message
        assert one.sent == one.received
    for one in by_kind["duplicated"]:
        assert one.explanation == f"the reply to message {one.message} came again"
        assert (one.sent.size, one.received.size) == (0, 64)
    reasons = {one.kind: one.reason for one in evidence.failures}
    assert reasons["lost"] == "no reply came within 200ms"


@pytest.mark.parametrize("engine", ["hub", "threads", "greenlets"])
def test_a_certificate_that_is_not_trusted(
    start_server: StartServer, tmp_path: Path, engine: str
) -> None:
    server = start_server(*("--listen", "tls://127.0.0.1:0", *make_certificates(tmp_path).options))
    _, result = loaded(
        "run", server.url, "-c", "2", "-n", "2", "--engine", engine, "--no-reconnect"
    )
    assert result.totals.errors == {"handshake": 2}
    (failure,) = true(result).failures
    assert failure.kind == "handshake"
    # The text is OpenSSL's.
    said = "certificate verify failed: unable to get local issuer certificate"
    assert failure.reason == f"cannot connect to {server.url}: TLS handshake failed: {said}"
    assert (failure.target, failure.message) == (server.url, None)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_port_that_nobody_listens_on(engine: str) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        target = f"tcp://127.0.0.1:{bound.getsockname()[1]}"
        _, result = loaded("run", target, "-c", "3", "-d", "1s", "--engine", engine)
    (failure,) = true(result).failures
    assert failure.reason == f"cannot connect to {target}: Connection refused"
    assert (failure.kind, failure.target, failure.message) == ("refused", target, None)
    assert failure.seconds is None
    assert result.evidence.wrong_replies == ()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_connection_that_is_reset(engine: str) -> None:
    with Service(resets_midway) as service:
        _, result = loaded(
            *("run", service.target, "-c", "1", "-n", "9", "--engine", engine, "--no-reconnect")
        )
    assert result.totals.errors == {"reset": 1}
    (failure,) = true(result).failures
    # Three replies came before.
    assert (failure.connection, failure.message) == (1, 3)
    assert failure.reason == "the server reset the connection (Connection reset by peer)"
    assert failure.seconds is not None


def test_a_fixed_payload_has_no_stamp() -> None:
    evidence = Evidence(FixedPayload(b"ping"))
    evidence.add_reply(1, difference(b"ping", b"pong"))
    assert evidence.take().replies[0].explanation == "1 of 4 bytes differs: byte 1"
