"""The evidence of failures as text: bytes as a hex dump, and lines for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from echo_load.results.evidence import Bytes, Evidence, FirstFailure, WrongReply, described
from echo_load.results.result import Result

# Layout of the hex dump on the terminal.
_BYTES_IN_LINE = 16
_LABEL_WIDTH = 10
_HEX_WIDTH = 3 * _BYTES_IN_LINE


class DumpedByte(NamedTuple):
    """A byte of a hex dump.

    Attributes:
        hex: its two hexadecimal digits.
        text: the character if it is printable ASCII, otherwise a full stop.
        differs: whether it differs from the byte at the same position of the other bytes.
    """

    hex: str
    text: str
    differs: bool


def dumped(shown: Bytes, other: Bytes) -> list[DumpedByte]:
    """Return bytes for a hex dump.

    Args:
        shown: the bytes.
        other: bytes to compare them with; if they are of an empty message or reply, no byte counts
            as different.
    """
    data, against = shown.data, other.data
    return [
        DumpedByte(
            f"{byte:02x}",
            chr(byte) if byte < 0x80 and chr(byte).isprintable() else ".",
            bool(other.size) and against[index : index + 1] != data[index : index + 1],
        )
        for index, byte in enumerate(data)
    ]


def dump_lines(shown: Bytes, other: Bytes, *, bytes_in_line: int) -> list[list[DumpedByte]]:
    """Return bytes for a hex dump, some in each line; see `dumped`."""
    whole = dumped(shown, other)
    return [whole[begin : begin + bytes_in_line] for begin in range(0, len(whole), bytes_in_line)]


def origin(one: WrongReply | FirstFailure, *, targets: int) -> str:
    """Return connection, message and time of a failure: `connection 3, message 17, at 1.204 s`.

    Args:
        one: the failure.
        targets: number of targets of the test; if there are several, the target is named, too.
    """
    parts = [one.target] if targets > 1 else []
    parts.append(f"connection {one.connection:,}")
    if one.message is not None:
        parts.append(f"message {one.message:,}")
    return ", ".join((*parts, instant(one)))


def instant(one: WrongReply | FirstFailure) -> str:
    """Return the time of a failure: `at 1.204 s`, or `before the start`."""
    if one.seconds is None or one.seconds < 0:
        return "before the start"
    return f"at {one.seconds:.3f} s"


def span(one: WrongReply) -> str:
    """Return the range of the shown bytes: `bytes 12 to 43 shown`; an empty text if it is all."""
    size = max(one.sent.size, one.received.size)
    shown = max(len(one.sent.data), len(one.received.data))
    if shown == size:
        return ""
    return f"bytes {one.begin:,} to {one.begin + shown - 1:,} shown"


def evidence_rows(evidence: Evidence) -> list[tuple[str, str]]:
    """Return each kind of failure with a line of text about the first one, without a dump.

    For a wrong reply, the line contains the received bytes.
    """
    rows = {one.kind: f"{origin(one, targets=1)}: {one.reason}" for one in evidence.failures}
    for kind, (first, *_) in evidence.replies_by_kind().items():
        said = described(first.explanation, first.received.text)
        text = f"{origin(first, targets=1)}: {said}"
        reason = rows.get(kind)
        rows[kind] = f"{text}; {reason.partition(': ')[2]}" if reason else text
    return list(rows.items())


def evidence_parts(result: Result) -> list[RenderableType]:
    """Return the evidence of a test for the terminal; empty if nothing failed."""
    targets, evidence = len(result.targets), result.evidence
    parts: list[RenderableType] = []
    by_kind = evidence.replies_by_kind()
    if by_kind:
        parts.append(Text("first wrong replies", "bold"))
    for kind, replies in by_kind.items():
        parts += [_replies(kind, replies, targets), Text()]
    if evidence.failures:
        failures = _grid(max(len(one.kind) for one in evidence.failures))
        for one in evidence.failures:
            text = f"{origin(one, targets=targets)}: {one.reason}"
            failures.add_row(Text(one.kind, "red"), Text(text))
        parts += [Text("first failures", "bold"), failures, Text()]
    return parts


def _replies(kind: str, replies: Sequence[WrongReply], targets: int) -> Table:
    """Return the wrong replies of a kind: bytes of the first one, and a line for each other."""
    first, *others = replies
    table = _grid(_LABEL_WIDTH)
    shown = f" ({span(first)})" if span(first) else ""
    table.add_row(Text(kind, "red"), origin(first, targets=targets))
    table.add_row("", Text.assemble(first.explanation, (shown, "dim")))
    nothing = "nothing: no further reply was due" if not first.sent.size else "none of these"
    table.add_row(Text("sent", "dim"), _dump(first.sent, first.received) or nothing)
    table.add_row(Text("received", "dim"), _dump(first.received, first.sent) or "none of these")
    for number, one in enumerate(others):
        label = Text("" if number else "also", "dim")
        table.add_row(label, f"{origin(one, targets=targets)}: {one.explanation}")
    return table


def _grid(label_width: int) -> Table:
    table = Table(box=None, show_header=False, pad_edge=True, padding=(0, 0, 0, 2))
    table.add_column(width=label_width)
    table.add_column()
    return table


def _dump(shown: Bytes, other: Bytes) -> Text:
    """Return a hex dump, which fits 80 columns; empty without bytes."""
    lines = []
    for row in dump_lines(shown, other, bytes_in_line=_BYTES_IN_LINE):
        line = Text()
        for index, byte in enumerate(row):
            gap = "  " if index == _BYTES_IN_LINE // 2 else " " if index else ""
            line.append(gap).append(byte.hex, "bold red" if byte.differs else "")
        line.append(" " * (_HEX_WIDTH + 2 - len(line)))
        for byte in row:
            line.append(byte.text, "bold red" if byte.differs else "")
        lines.append(line)
    return Text("\n").join(lines)
