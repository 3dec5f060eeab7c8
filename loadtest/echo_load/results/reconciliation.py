"""The reconciliation of the generators' counts with the server's."""

from __future__ import annotations

from typing import Literal

import msgspec


class Reconciliation(msgspec.Struct, frozen=True, kw_only=True):
    """The comparison of the generators' counts with the counters of the server.

    Without loss or duplication on the way, the four counts are equal. They include the warm-up.

    Attributes:
        admin: URL of the admin page from which the server's counters were read.
        unit: unit of the counts: `bytes`, or `datagrams` if all targets are `udp://`.
        sent: count sent by the generators.
        received_by_server: count received by the server since the test began.
        sent_by_server: count sent by the server since the test began.
        received: count received by the generators.
        balanced: whether all four counts are equal.
        differences: what differs, and a possible cause, one line each; empty if balanced.
        server: increase of every counter of the server since the test began, by the name of its
            metric; counters that did not change are left out.
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
