"""The evidence of failures in a result."""

from __future__ import annotations

import time

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from echo_load.engines.evidence import Excerpt, Found, FoundFailure, FoundReply
from echo_load.results.evidence import Bytes, Evidence, earliest, escaped, evidence_of

TARGETS = ["tcp://127.0.0.1:1", "tcp://127.0.0.1:2"]


@given(st.binary(max_size=32))
def test_bytes_are_shown_without_control_characters_and_can_be_read_back(data: bytes) -> None:
    shown = Bytes.of(Excerpt(len(data), data))
    assert shown.data == data
    assert shown.text.isascii()
    assert shown.text.isprintable()
    assert shown.text.encode().decode("unicode_escape").encode("latin-1") == data


def test_text_is_escaped_as_people_know_it() -> None:
    assert escaped(b"HTTP/1.1 400\r\n\t'\"\\\x00\x1b[31m\xff") == (
        r"HTTP/1.1 400\r\n\t'" + '"' + r"\\\x00\x1b[31m\xff"
    )


def reply(kind: str, connection: int, at_ns: int) -> FoundReply:
    bytes_ = Excerpt(1, b"x")
    return FoundReply(kind, connection, 0, at_ns, 0, 0, bytes_, bytes_, "")


def test_when_and_where_it_was() -> None:
    now = time.monotonic_ns()
    found = Found([reply("corrupt", 1, now), reply("corrupt", 2, now + 1_500_000_000)])
    first, second = evidence_of(found, {"corrupt": 2}, TARGETS, now).wrong_replies
    assert (first.seconds, second.seconds) == (0.0, 1.5)
    assert [first.target, second.target] == TARGETS
    assert first.at < second.at
    assert first.at.endswith("+00:00")
    early = Found(failures=[FoundFailure("refused", 3, None, now - 500_000_000, "")])
    assert evidence_of(early, {"refused": 1}, TARGETS, now).failures[0].seconds == -0.5
    assert evidence_of(early, {"refused": 1}, TARGETS, None).failures[0].seconds is None


def test_failures_that_were_withdrawn_have_no_evidence() -> None:
    """A datagram that counted as lost may come late."""
    found = Found([reply("corrupt", 1, 0)], [FoundFailure("lost", 1, 0, 0, "no reply came")])
    evidence = evidence_of(found, {"corrupt": 1, "lost": 0}, TARGETS, 0)
    assert [one.kind for one in evidence.wrong_replies] == ["corrupt"]
    assert evidence.failures == ()


def test_evidence_of_several_workers_is_merged_by_time() -> None:
    def of(*instants: int) -> Evidence:
        found = Found([reply("corrupt", 1, at * 10**9) for at in instants])
        found.failures.append(FoundFailure("reset", 1, 0, instants[0] * 10**9, ""))
        return evidence_of(found, {"corrupt": 9, "reset": 9}, TARGETS, 0)

    together = earliest([of(1, 4, 6), of(2, 3, 5)])
    assert [one.seconds for one in together.wrong_replies] == [1, 2, 3, 4, 5]
    assert [one.seconds for one in together.failures] == [1]
    # A worker sends all it has each time.
    assert (
        earliest([together, msgspec.convert(msgspec.to_builtins(together), Evidence)]) == together
    )
