"""The interface of engines."""

from __future__ import annotations

from typing import Protocol

from echo_load.measure.counts import Counts


class Engine(Protocol):
    """An engine, which opens connections, sends messages from an instant on, and checks replies."""

    def open(self) -> None:
        """Begin to open the initial connections; return immediately."""

    @property
    def settled(self) -> bool:
        """True if every initial connection is established or has failed."""

    def start(self, gate_ns: int) -> None:
        """Open the gate: send from an instant on, until the end of the share.

        Args:
            gate_ns: instant at which the first stage begins, in nanoseconds of the monotonic clock.
        """

    def abort(self, verdict: str | None = None) -> None:
        """Stop immediately, and give up all connections.

        Args:
            verdict: kind of failure that is counted for each connection on which a reply is still
                expected; None to count nothing.
        """

    @property
    def ended(self) -> bool:
        """True if every connection has ended and nothing more is to be sent."""

    def join(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for the end; return False if it takes longer."""

    def counts(self) -> Counts:
        """Return the counts since the beginning."""

    def messages_by_connection(self) -> list[int]:
        """Return the number of completed round trips of each connection of the share."""
