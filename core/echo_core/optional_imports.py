"""Imports that do not load an optional dependency of what is imported."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without(module: str) -> Iterator[None]:
    """Let imports in the block fail to find a module, as if it were not installed.

    A module that has been imported before is still found.
    """
    if module in sys.modules:
        yield
        return
    # The documented way to make an import fail (Python's reference, section 5.3.1).
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]
