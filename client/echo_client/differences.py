"""Descriptions of replies that differ from their messages, for people to read."""

from __future__ import annotations

# The number of bytes to show before and after the first difference.
_AROUND = 8


def describe(message: bytes, reply: bytes) -> list[str]:
    """Return lines that say where a reply first differs from its message.

    The first line gives the offset; the others show the bytes around it, in hexadecimal and as
    text.
    """
    offset = first_difference(message, reply)
    begin = max(0, offset - _AROUND)
    end = min(offset + _AROUND, max(len(message), len(reply)))
    return [
        f"the reply {_kind(message, reply, offset)}",
        f"  sent      {_dump(message, begin, end)}",
        f"  received  {_dump(reply, begin, end)}",
    ]


def excerpt(data: bytes) -> str:
    """Return the beginning of data, in hexadecimal and as text."""
    return _dump(data, 0, min(len(data), 2 * _AROUND))


def first_difference(message: bytes, reply: bytes) -> int:
    """Return the offset of the first byte that differs; the shorter length if none does."""
    pairs = enumerate(zip(message, reply, strict=False))
    shorter = min(len(message), len(reply))
    return next((offset for offset, (one, other) in pairs if one != other), shorter)


def _kind(message: bytes, reply: bytes, offset: int) -> str:
    lengths = f"{len(message)} bytes were sent and {len(reply)} came back"
    if offset == len(reply):
        return f"ends at offset {offset}: {lengths}"
    if offset == len(message):
        return f"continues after offset {offset}: {lengths}"
    if len(message) != len(reply):
        return f"differs from offset {offset} on: {lengths}"
    count = sum(one != other for one, other in zip(message, reply, strict=True))
    return f"differs from offset {offset} on, in {count} of {len(message)} bytes"


def _dump(data: bytes, begin: int, end: int) -> str:
    """Return bytes in hexadecimal and as ASCII, with marks where data is left out."""
    part = data[begin:end]
    left, right = ("…" if begin else ""), ("…" if len(data) > end else "")
    text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in part)
    width = 3 * (end - begin)
    return f"{f'{left}{part.hex(chr(32))}{right}':<{width + 1}} |{text}|"
