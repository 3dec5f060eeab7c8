"""GitHub-flavoured Markdown: escapes, code, tables."""

from __future__ import annotations

import re

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from echo_load.report.plain_text import printable

_SPECIAL = re.compile(r"[\\`*_\[\]<>|~&$#]|^[-+]")
# GitHub replaces these even if they are escaped, except in code: mentions, numbers of issues, and
# names of emoji. A number at the beginning would make a list.
_REPLACED = re.compile(r"@\w|#\d|:(?:(?!\d+:)[\w+-]+|100|1234):|^\d+[.)]\s")
_BACKTICKS = re.compile("`+")


def escaped(text: str, *, in_table: bool = False) -> str:
    """Return text in one line, escaped so that it is shown as it is."""
    line = _one_line(text)
    if _REPLACED.search(line):
        return code(line, in_table=in_table)
    return _SPECIAL.sub(r"\\\g<0>", line)


def code(text: str, *, in_table: bool = False) -> str:
    """Return text in one line as code; empty if the text is."""
    line = _one_line(text)
    if not line:
        return ""
    fence = "`" * (_longest(line) + 1)
    gap = " " if "`" in {line[0], line[-1]} else ""
    # In a table a bar ends the cell, even in code; elsewhere the backslash would be shown.
    line = line.replace("|", r"\|") if in_table else line
    return f"{fence}{gap}{line}{gap}{fence}"


def block(text: str) -> str:
    """Return lines of text as a block of code."""
    fence = "`" * max(3, _longest(text) + 1)
    return f"{fence}text\n{printable(text)}\n{fence}"


def table(shown: Table) -> str:
    """Return a table for the terminal in Markdown; cells in the style `code` become code."""
    heads = [_cell(column.header) for column in shown.columns]
    rules = ["--:" if column.justify == "right" else ":--" for column in shown.columns]
    cells = [[_cell(one) for one in column.cells] for column in shown.columns]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, rules, *zip(*cells, strict=True)))


def _cell(content: RenderableType) -> str:
    text = content if isinstance(content, Text) else Text(str(content))
    write = code if text.style == "code" else escaped
    return "<br>".join(write(line, in_table=True) for line in text.plain.splitlines())


def _one_line(text: str) -> str:
    return " ".join(printable(text).split())


def _longest(text: str) -> int:
    """Return the length of the longest sequence of backticks."""
    return max(map(len, _BACKTICKS.findall(text)), default=0)
