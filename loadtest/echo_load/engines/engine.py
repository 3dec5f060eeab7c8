"""The interface of every engine."""

from __future__ import annotations

from typing import Protocol

from echo_load.measure.counts import Counts


class Engine(Protocol):
    """Opens connections, waits at the gate, sends and checks, and says what happened."""

    def open(self) -> None:
        """Begin to open the connections of the beginning; returns at once."""

    @property
    def settled(self) -> bool:
        """Every connection of the beginning is established or has failed."""

    def start(self, gate_ns: int) -> None:
        """Open the gate: every connection sends from an instant on, until its share's end.

        Args:
            gate_ns: the instant, of the monotonic clock; the first stage begins with it.
        """

    def abort(self, verdict: str | None = None) -> None:
        """Break off at once.

        Args:
            verdict: the error that a round trip under way counts as; without one it counts as
                nothing at all.
        """

    @property
    def ended(self) -> bool:
        """Every connection has ended, and the time in which they were to send is over."""

    def join(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for what `abort` woke; False if some still runs."""

    def counts(self) -> Counts:
        """Return the counts since the beginning."""

    def messages_by_connection(self) -> list[int]:
        """Return the number of round trips of each connection."""
