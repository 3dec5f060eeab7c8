"""The interface of every engine."""

from __future__ import annotations

from typing import Protocol

from echo_load.measure.counts import Counts


class Engine(Protocol):
    """Opens connections, waits for the gate to open, sends, checks and counts."""

    def open(self) -> None:
        """Begin to open the initial connections; return at once."""

    @property
    def settled(self) -> bool:
        """Whether every initial connection is established or has failed."""

    def start(self, gate_ns: int) -> None:
        """Open the gate: every connection sends from an instant on, until its share's end.

        Args:
            gate_ns: the instant, on the monotonic clock, at which the first stage begins.
        """

    def abort(self, verdict: str | None = None) -> None:
        """Stop at once.

        Args:
            verdict: the error as which a round trip in flight is counted; None for not counting it.
        """

    @property
    def ended(self) -> bool:
        """Whether every connection has ended and nothing more is to be sent."""

    def join(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for what `abort` woke; return False if some still runs."""

    def counts(self) -> Counts:
        """Return the counts since the beginning."""

    def messages_by_connection(self) -> list[int]:
        """Return the number of round trips of each connection."""
