"""An engine that consists of several engines in one process, one for each target."""

from __future__ import annotations

import time
from collections.abc import Sequence

from echo_load.engines.engine import Engine
from echo_load.measure.counts import Counts


class SeveralEngines:
    """An engine that runs several engines at the same time.

    Args:
        engines: the engines.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._engines = engines

    def open(self) -> None:
        """Begin to open the initial connections; return immediately."""
        for engine in self._engines:
            engine.open()

    @property
    def settled(self) -> bool:
        """True if every initial connection is established or has failed."""
        # All engines are checked, because each one raises its own error.
        settled = [engine.settled for engine in self._engines]
        return all(settled)

    def start(self, gate_ns: int) -> None:
        """Open the gate: send from an instant on, until the end of the share."""
        for engine in self._engines:
            engine.start(gate_ns)

    def abort(self, verdict: str | None = None) -> None:
        """Stop immediately; count the verdict for each connection that expects a reply."""
        for engine in self._engines:
            engine.abort(verdict)

    @property
    def ended(self) -> bool:
        """True if every connection has ended and nothing more is to be sent."""
        ended = [engine.ended for engine in self._engines]
        return all(ended)

    def join(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for the end; return False if it takes longer."""
        deadline = time.monotonic() + timeout
        return all(engine.join(max(0.0, deadline - time.monotonic())) for engine in self._engines)

    def counts(self) -> Counts:
        """Return the counts of all engines since the beginning."""
        return sum((engine.counts() for engine in self._engines), Counts())

    def messages_by_connection(self) -> list[int]:
        """Return the number of completed round trips of each connection, by engine."""
        return [count for engine in self._engines for count in engine.messages_by_connection()]
