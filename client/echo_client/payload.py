"""What is sent to an echo service."""

from __future__ import annotations


def hello(sequence: int) -> bytes:
    """The stress test's message: `hello 0`, `hello 1` and on."""
    return b"hello %d" % sequence
