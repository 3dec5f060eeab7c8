"""The summary of a result of any command, and reports for the terminal as plain text."""

from __future__ import annotations

import io

from rich.console import Console, Group, RenderableType

from echo_load.report.idle import idle_summary
from echo_load.report.tables import summary
from echo_load.report.watching import watch_summary
from echo_load.results.result import Result

_WIDTH = 100


def summary_of(result: Result) -> Group:
    """Return targets, verdict and reasons in a few lines, short enough for a chat message."""
    if result.watch is not None:
        return watch_summary(result, result.watch)
    if result.idle is not None:
        return idle_summary(result, result.idle)
    return summary(result)


def as_text(*parts: RenderableType, wrap: bool = True) -> str:
    """Return parts of a report as plain text, one below the other, with nothing after the last.

    Args:
        parts: the parts.
        wrap: whether to break lines longer than 100 characters.
    """
    text = io.StringIO()
    console = Console(
        file=text,
        width=_WIDTH,
        color_system=None,
        force_terminal=False,
        highlight=False,
        markup=False,
        emoji=False,
    )
    console.print(*parts, sep="\n", soft_wrap=not wrap)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()).strip("\n")
