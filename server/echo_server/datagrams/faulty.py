"""The UDP echo with injected faults."""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection
from typing import Any

import structlog
from gevent.hub import get_hub

from echo_server.datagrams.echo import DatagramEcho, Route
from echo_server.faults import FaultPlan
from echo_server.metrics.counters import Counter, Counters

log = structlog.get_logger()

# A datagram that is to come after the next one does not wait for it any longer.
REORDER_SECONDS = 0.1
# Memory that held datagrams of a socket may take, and what one takes besides its data.
MOST_HELD_BYTES = 64 * 1024 * 1024
_HOLDING_BYTES = 1536


class FaultyDatagramEcho(DatagramEcho):
    """The echo of one UDP socket, with faults injected into single datagrams.

    Delayed and reordered datagrams are held in memory, `MOST_HELD_BYTES` at most; what would be
    more is dropped, and counted.

    Args:
        listener: as of `DatagramEcho`.
        counters: as of `DatagramEcho`.
        own_ports: as of `DatagramEcho`.
        low_ports: as of `DatagramEcho`.
        plan: which faults strike; all datagrams of a socket count as one connection.
    """

    def __init__(
        self,
        listener: socket.socket,
        counters: Counters,
        *,
        own_ports: Collection[int],
        low_ports: bool,
        plan: FaultPlan,
    ) -> None:
        super().__init__(listener, counters, own_ports=own_ports, low_ports=low_ports)
        self._plan = plan
        self._number = 0
        self._timers: set[Any] = set()
        self._held_bytes = 0
        # Datagrams that are to come after the next one to the same address.
        self._held: dict[Route, bytes] = {}

    def close(self) -> None:
        """Close the socket; datagrams still delayed are not sent."""
        super().close()
        self._counters.add(Counter.DROPPED_SERVER_STOPPED, len(self._timers))
        for timer in self._timers:
            timer.stop()
            timer.close()

    def send(self, data: memoryview | bytes, route: Route) -> None:
        """Echo a datagram, with the fault chosen for it, if any."""
        data = bytes(data)
        strike = self._plan.strike(0, self._number)
        self._number += 1
        if strike is None:
            self._send(data, route)
            return
        self._counters.add(strike.fault.kind)
        match strike.fault.kind:
            case Counter.FAULT_CORRUPT:
                self._send(strike.corrupted(data), route)
            case Counter.FAULT_TRUNCATE:
                self._send(strike.truncated(data), route)
            case Counter.FAULT_DUPLICATE:
                self._send(data, route)
                self._send(data, route)
            case Counter.FAULT_DELAY:
                self._hold(strike.seconds, data, lambda: self._send(data, route))
            case Counter.FAULT_REORDER:
                self._release(route)
                if self._hold(REORDER_SECONDS, data, lambda: self._release(route, data)):
                    self._held[route] = data

    def _send(self, data: bytes, route: Route) -> None:
        super().send(data, route)
        self._release(route)

    def _release(self, route: Route, only: bytes | None = None) -> None:
        """Send the datagrams held back for an address."""
        held = self._held.get(route)
        if held is not None and (only is None or only is held):
            del self._held[route]
            super().send(held, route)

    def _hold(self, seconds: float, data: bytes, send: Callable[[], None]) -> bool:
        """Send a datagram after a delay; drop it and return False if too much is being held."""
        size = len(data) + _HOLDING_BYTES
        if self._held_bytes + size > MOST_HELD_BYTES:
            self._counters.add(Counter.DROPPED_FAULT_BUFFER_FULL)
            return False
        self._held_bytes += size
        timer = get_hub().loop.timer(seconds)

        def run() -> None:
            # An exception that left a callback of the hub would only be printed.
            try:
                self._timers.discard(timer)
                timer.close()
                self._held_bytes -= size
                send()
            except Exception:
                log.exception("fault failed")

        self._timers.add(timer)
        timer.start(run, update=True)
        return True
