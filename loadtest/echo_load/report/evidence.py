"""The evidence of failures as text: bytes as a hex dump, and lines for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from echo_load.results.evidence import Bytes, Evidence, FirstFailure, WrongReply
from echo_load.results.result import Result

# On the terminal.
_BYTES_IN_LINE = 16
_LABEL_WIDTH = 10
_HEX_WIDTH = 3 * _BYTES_IN_LINE


class DumpedByte(NamedTuple):
    """A byte of a hex dump.

    Attributes:
        hex: its two digits.
        text: the character if it is printable ASCII, otherwise a full stop.
        differs: whether it differs from its counterpart.
    """

    hex: str
    text: str
    differs: bool


def dumped(shown: Bytes, other: Bytes) -> list[DumpedByte]:
    """Return bytes for a hex dump.

    Args:
        shown: the bytes.
        other: those that they are compared with; nothing differs if there are none at all.
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
    """Return where and when something failed: `connection 3, message 17, at 1.204 s`.

    Args:
        one: the failure.
        targets: number of targets of the test; its target is named if there are several.
    """
    parts = [one.target] if targets > 1 else []
    parts.append(f"connection {one.connection:,}")
    if one.message is not None:
        parts.append(f"message {one.message:,}")
    return ", ".join((*parts, instant(one)))


def instant(one: WrongReply | FirstFailure) -> str:
    """Return when something failed: `at 1.204 s`, or `before the start`."""
    if one.seconds is None or one.seconds < 0:
        return "before the start"
    return f"at {one.seconds:.3f} s"


def span(one: WrongReply) -> str:
    """Return which bytes are shown: `bytes 12 to 43 shown`, or nothing if all are."""
    size = max(one.sent.size, one.received.size)
    shown = max(len(one.sent.data), len(one.received.data))
    if shown == size:
        return ""
    return f"bytes {one.begin:,} to {one.begin + shown - 1:,} shown"


def evidence_rows(evidence: Evidence) -> list[tuple[str, str]]:
    """Return the first failure of each kind as a kind and a line of text, without a dump.

    Kinds with a wrong reply are shown by what came.
    """
    rows = {one.kind: f"{origin(one, targets=1)}: {one.reason}" for one in evidence.failures}
    for kind, (first, *_) in evidence.replies_by_kind().items():
        came = f"; received {first.received.text}" if first.received.size else ""
        said = f"{origin(first, targets=1)}: {first.explanation}{came}"
        reason = rows.get(kind)
        rows[kind] = f"{said}; {reason.partition(': ')[2]}" if reason else said
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
            said = f"{origin(one, targets=targets)}: {one.reason}"
            failures.add_row(Text(one.kind, "red"), Text(said))
        parts += [Text("first failures", "bold"), failures, Text()]
    return parts


def _replies(kind: str, replies: Sequence[WrongReply], targets: int) -> Table:
    """Return the wrong replies of a kind: the bytes of the first one, and a line of each other."""
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
