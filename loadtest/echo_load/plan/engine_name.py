"""The engines that a plan can name, and what they support."""

from __future__ import annotations

from typing import Literal

EngineName = Literal["hub", "greenlets", "threads"]
# The schemes of targets that each engine supports.
SUPPORTED_SCHEMES: dict[EngineName, frozenset[str]] = {
    "hub": frozenset({"tcp", "tls", "udp", "unix"}),
    "greenlets": frozenset({"tcp", "tls", "unix"}),
    "threads": frozenset({"tcp", "tls", "unix"}),
}
