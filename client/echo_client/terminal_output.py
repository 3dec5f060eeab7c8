"""Output of the prompt: lines in the prompt's colours, and progress."""

from __future__ import annotations

import sys
import time

from prompt_toolkit import print_formatted_text
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.styles import Style

STYLE = Style.from_dict({"dim": "#888888", "error": "ansired", "prompt": "bold"})

# The interval at which progress is shown, which is also the time before it is shown at all.
_INTERVAL_NS = 500_000_000


def show(text: str, dimmed: str = "") -> None:
    """Print a line, the second part of which is less prominent."""
    print_formatted_text(FormattedText([("", text), ("class:dim", dimmed)]), style=STYLE)


def show_error(text: str) -> None:
    """Print a line as an error."""
    print_formatted_text(FormattedText([("class:error", text)]), style=STYLE)


class Progress:
    """A line that shows how many of many steps are done, and is erased at the end.

    Args:
        total: the number of steps.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._due_ns = time.monotonic_ns() + _INTERVAL_NS
        self._width = 0

    def update(self, done: int) -> None:
        """Show the number of steps done, if the last time was long enough ago."""
        now_ns = time.monotonic_ns()
        if now_ns >= self._due_ns:
            self._due_ns = now_ns + _INTERVAL_NS
            self._write(f"{done:,} of {self._total:,} ({100 * done // self._total} %)")

    def erase(self) -> None:
        """Erase the line."""
        if self._width:
            self._write("")

    def _write(self, text: str) -> None:
        # Spaces instead of escape sequences, which not all terminals understand.
        sys.stdout.write(f"\r{text:<{self._width}}" if text else f"\r{' ' * self._width}\r")
        sys.stdout.flush()
        self._width = max(self._width, len(text))
