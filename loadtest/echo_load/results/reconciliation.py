"""The reconciliation of the generators' counts with the server's."""

from __future__ import annotations

from typing import Literal

import msgspec


class Reconciliation(msgspec.Struct, frozen=True, kw_only=True):
    """The four counts, and what explains their differences.

    Attributes:
        admin: where the server's counters were read.
        unit: `bytes`, or `datagrams` where all targets are UDP.
        sent: by the generators, the warm-up included.
        received_by_server: since the test began.
        sent_by_server: since the test began.
        received: by the generators.
        balanced: all four are equal.
        differences: where the counts part, a line each.
        server: all that the server has counted since the test began, by the names of its metrics;
            what stayed the same is left out.
    """

    admin: str
    unit: Literal["bytes", "datagrams"]
    sent: int
    received_by_server: int
    sent_by_server: int
    received: int
    balanced: bool
    differences: list[str]
    server: dict[str, int]
