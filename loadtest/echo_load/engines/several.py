"""Several engines in one process, one for each target, as one engine."""

from __future__ import annotations

import time
from collections.abc import Sequence

from echo_load.engines.engine import Engine
from echo_load.measure.counts import Counts


class SeveralEngines:
    """Runs several engines at the same time.

    Args:
        engines: the engines.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._engines = engines

    def open(self) -> None:
        """Begin to open the initial connections; return at once."""
        for engine in self._engines:
            engine.open()

    @property
    def settled(self) -> bool:
        """Whether every initial connection is established or has failed."""
        # All are asked, because each raises its own error.
        settled = [engine.settled for engine in self._engines]
        return all(settled)

    def start(self, gate_ns: int) -> None:
        """Open the gate: every connection sends from an instant on, until its share's end."""
        for engine in self._engines:
            engine.start(gate_ns)

    def abort(self, verdict: str | None = None) -> None:
        """Stop at once; a round trip in flight counts as the verdict, or not at all."""
        for engine in self._engines:
            engine.abort(verdict)

    @property
    def ended(self) -> bool:
        """Whether every connection has ended and nothing more is to be sent."""
        ended = [engine.ended for engine in self._engines]
        return all(ended)

    def join(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for what `abort` woke; return False if some still runs."""
        deadline = time.monotonic() + timeout
        return all(engine.join(max(0.0, deadline - time.monotonic())) for engine in self._engines)

    def counts(self) -> Counts:
        """Return the counts since the beginning, of all engines together."""
        return sum((engine.counts() for engine in self._engines), Counts())

    def messages_by_connection(self) -> list[int]:
        """Return the number of round trips of each connection."""
        return [count for engine in self._engines for count in engine.messages_by_connection()]
