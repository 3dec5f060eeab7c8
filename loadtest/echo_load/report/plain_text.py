"""Text that files in any format can contain."""

from __future__ import annotations

import re

# What XML 1.0 forbids (production 2), control characters that it discourages, and the characters
# that change the direction of the text around them.
_UNPRINTABLE = re.compile(
    "[^\t\n\x20-\x7e\xa0-\u2027\u202f-\u2065\u206a-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
)


def printable(text: str) -> str:
    r"""Return a text in which unprintable characters are escaped as `\x1b` or `\ud800`.

    Tabs and line feeds are kept.
    """
    return _UNPRINTABLE.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
