"""A datagram echo that injects faults, in place of the one that does not."""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection
from typing import Any

import structlog
from gevent.hub import get_hub

from echo_server.counters import Counter, Counters
from echo_server.datagram import DatagramEcho, Route
from echo_server.faults import FaultPlan

log = structlog.get_logger()

# A datagram that is to come after the next one does not wait for it any longer.
REORDER_SECONDS = 0.1


class FaultyDatagramEcho(DatagramEcho):
    """Echoes the datagrams of one socket and injects faults, one by one.

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
        # Datagrams that are to come after the next one to the same address.
        self._held: dict[Route, bytes] = {}

    def stop(self) -> None:
        """Echo what waits, without what is still delayed, then close the socket."""
        super().stop()
        for timer in self._timers:
            timer.stop()
            timer.close()

    def send(self, data: memoryview | bytes, route: Route) -> None:
        """Send a datagram back, unless a fault strikes it."""
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
                self._later(strike.seconds, lambda: self._send(data, route))
            case Counter.FAULT_REORDER:
                self._release(route)
                self._held[route] = data
                self._later(REORDER_SECONDS, lambda: self._release(route, data))

    def _send(self, data: bytes, route: Route) -> None:
        super().send(data, route)
        self._release(route)

    def _release(self, route: Route, only: bytes | None = None) -> None:
        """Send what was held back for an address."""
        held = self._held.get(route)
        if held is not None and (only is None or only is held):
            del self._held[route]
            super().send(held, route)

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        timer = get_hub().loop.timer(seconds)

        def run() -> None:
            # An exception that left a callback of the hub would only be printed.
            try:
                self._timers.discard(timer)
                timer.close()
                call()
            except Exception:
                log.exception("fault failed")

        self._timers.add(timer)
        timer.start(run, update=True)
