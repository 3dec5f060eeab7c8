"""The evidence of failures on the terminal and as lines of text."""

from __future__ import annotations

import io
import time

import msgspec
import pytest
from rich.console import Console

from echo_client.failure_kinds import FailureKind
from echo_load.engines.checking import Difference
from echo_load.engines.evidence import Evidence as Collector
from echo_load.report.evidence import dumped, evidence_parts, evidence_rows
from echo_load.results.evidence import evidence_of
from echo_load.results.result import Result
from support.misbehaving import Service, greets
from support.processes import LOAD, loaded, run

DUE = bytes(range(64))
# Sequences that would clear the screen, ring and colour.
HOSTILE = b"\x1b[2J\x07\x1b[31m\x9b31m\r\n\xe2\x80\xae".ljust(64, b"\x00")


@pytest.fixture(scope="module")
def result() -> Result:
    """A result without evidence."""
    return loaded("run", "-c", "1", "-n", "1")[1]


def with_evidence(result: Result, *found: Difference, targets: int = 1) -> Result:
    collector, begin_ns = Collector(), time.monotonic_ns()
    for number, one in enumerate(found, 1):
        collector.add_reply(number, one)
    kinds = {str(one.kind): 1 for one in found}
    evidence = evidence_of(collector.take(), kinds, ["tcp://a:1", "tcp://b:2"][:targets], begin_ns)
    return msgspec.structs.replace(
        result, evidence=evidence, targets=["tcp://a:1", "tcp://b:2"][:targets]
    )


def printed(result: Result, width: int = 80) -> list[str]:
    stream = io.StringIO()
    console = Console(file=stream, width=width, highlight=False, markup=False, emoji=False)
    console.print(*evidence_parts(result), sep="\n")
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def test_without_failures_there_is_nothing(result: Result) -> None:
    assert evidence_parts(result) == []
    assert evidence_rows(result.evidence) == []


def test_a_hex_dump_of_what_was_sent_and_what_came(result: Result) -> None:
    got = DUE[:20] + b"HTTP/1.1 400" + DUE[32:]
    lines = printed(with_evidence(result, Difference(FailureKind.CORRUPT, 7, DUE, got)))
    assert lines[0] == "first wrong replies"
    assert lines[1].startswith("  corrupt     connection 1, message 7, at ")
    assert lines[2:7] == [
        "              12 of 64 bytes differ, from byte 20 on (bytes 12 to 43 shown)",
        "  sent        0c 0d 0e 0f 10 11 12 13  14 15 16 17 18 19 1a 1b  ................",
        "              1c 1d 1e 1f 20 21 22 23  24 25 26 27 28 29 2a 2b  .... !\"#$%&'()*+",
        "  received    0c 0d 0e 0f 10 11 12 13  48 54 54 50 2f 31 2e 31  ........HTTP/1.1",
        "              20 34 30 30 20 21 22 23  24 25 26 27 28 29 2a 2b   400 !\"#$%&'()*+",
    ]


def test_the_others_of_a_kind_have_a_line_each(result: Result) -> None:
    wrong = [Difference(FailureKind.CORRUPT, number, b"abcd", b"wxyz") for number in range(9)]
    lines = printed(with_evidence(result, *wrong, targets=2))
    also = [line for line in lines if "all 4 bytes differ" in line]
    assert len(also) == 5
    assert also[1].startswith("  also        tcp://b:2, connection 2, message 1, at ")


@pytest.mark.parametrize("due", [DUE, b""])
def test_no_byte_controls_the_terminal(result: Result, due: bytes) -> None:
    wrong = with_evidence(result, Difference(FailureKind.FOREIGN, 0, due, HOSTILE))
    for line in [*printed(wrong), *(said for _, said in evidence_rows(wrong.evidence))]:
        assert line.isascii()
        assert line.isprintable()
    (reply,) = wrong.evidence.wrong_replies
    assert "".join(one.text for one in dumped(reply.received, reply.sent))[:8] == ".[2J..[3"


def test_bytes_that_differ_are_marked(result: Result) -> None:
    got = DUE[:30] + b"\xff" + DUE[31:]
    (reply,) = with_evidence(
        result, Difference(FailureKind.CORRUPT, 0, DUE, got)
    ).evidence.wrong_replies
    for shown, other in ((reply.sent, reply.received), (reply.received, reply.sent)):
        differing = [
            reply.begin + index for index, one in enumerate(dumped(shown, other)) if one.differs
        ]
        assert differing == [30]


def test_nothing_is_marked_where_nothing_was_due(result: Result) -> None:
    (reply,) = with_evidence(
        result, Difference(FailureKind.FOREIGN, -1, b"", b"220 mail")
    ).evidence.wrong_replies
    assert not any(one.differs for one in dumped(reply.received, reply.sent))


def test_what_a_server_of_another_protocol_said_is_on_the_screen() -> None:
    with Service(greets) as service:
        shown = run([*LOAD, "run", service.target, "-c", "1", "-n", "1", "--no-reconnect"])
    lines = [line.rstrip() for line in shown.stdout.decode().splitlines()]
    begin = lines.index("first wrong replies")
    assert "connection 1" in lines[begin + 1]
    assert any(line.endswith("220 mail.example") for line in lines[begin:])


def test_a_refused_connection_is_on_the_screen() -> None:
    shown = run([*LOAD, "run", "tcp://127.0.0.1:1", "-c", "1", "-d", "1s"]).stdout.decode()
    words = " ".join(shown.partition("first failures")[2].split())
    assert words.startswith(
        "refused connection 1, before the start: cannot connect to tcp://127.0.0.1:1: "
        "Connection refused"
    )
