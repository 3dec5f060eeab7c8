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

# The maximum time that a reordered datagram waits for the next one.
REORDER_SECONDS = 0.1
# The maximum memory for the delayed datagrams of a socket, and the memory for one besides its data.
MAX_DELAYED_BYTES = 64 * 1024 * 1024
_OVERHEAD_BYTES = 1536


class FaultyDatagramEcho(DatagramEcho):
    """The echo of a UDP socket, with faults injected into single datagrams.

    Delayed and reordered datagrams take at most `MAX_DELAYED_BYTES` of memory; datagrams beyond
    that are dropped and counted.

    Args:
        listener: see `DatagramEcho`.
        counters: see `DatagramEcho`.
        own_ports: see `DatagramEcho`.
        low_ports: see `DatagramEcho`.
        plan: the choice of the datagrams that faults are injected into; all datagrams of a socket
            count as one connection.
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
        # The timer of each delayed datagram, and the memory that the datagram takes.
        self._delayed: dict[Any, int] = {}
        self._delayed_bytes = 0
        # The datagrams to be sent after the next one to the same address, with their timers.
        self._reordered: dict[Route, tuple[Any, bytes]] = {}

    def close(self) -> None:
        """Close the socket; datagrams that are still delayed are dropped and counted."""
        super().close()
        self._counters.add(Counter.DROPPED_SERVER_STOPPED, len(self._delayed))
        for timer in list(self._delayed):
            self._forget(timer)

    def send(self, data: memoryview | bytes, route: Route) -> None:
        """Echo a datagram, with the fault chosen for it, if any."""
        data = bytes(data)
        injection = self._plan.choose(0, self._number)
        self._number += 1
        if injection is None:
            self._send(data, route)
            return
        self._counters.add(injection.fault.kind)
        match injection.fault.kind:
            case Counter.FAULT_CORRUPT:
                self._send(injection.corrupted(data), route)
            case Counter.FAULT_TRUNCATE:
                self._send(injection.truncated(data), route)
            case Counter.FAULT_DUPLICATE:
                self._send(data, route)
                self._send(data, route)
            case Counter.FAULT_DELAY:
                self._delay(injection.seconds, data, lambda: self._send(data, route))
            case Counter.FAULT_REORDER:
                self._send_reordered(route)
                timer = self._delay(REORDER_SECONDS, data, lambda: self._send_reordered(route))
                if timer is not None:
                    self._reordered[route] = (timer, data)

    def _send(self, data: bytes, route: Route) -> None:
        super().send(data, route)
        self._send_reordered(route)

    def _send_reordered(self, route: Route) -> None:
        """Send the datagram that waits for the next one to the same address, if there is one."""
        reordered = self._reordered.pop(route, None)
        if reordered is not None:
            timer, data = reordered
            self._forget(timer)
            super().send(data, route)

    def _delay(self, seconds: float, data: bytes, send: Callable[[], None]) -> Any:
        """Call `send` after a delay; return the timer.

        If too many bytes are being delayed, drop the datagram and return None.
        """
        size = len(data) + _OVERHEAD_BYTES
        if self._delayed_bytes + size > MAX_DELAYED_BYTES:
            self._counters.add(Counter.DROPPED_FAULT_BUFFER_FULL)
            return None
        timer = get_hub().loop.timer(seconds)

        def run() -> None:
            # An exception that escapes from a hub callback would only be logged.
            try:
                self._forget(timer)
                send()
            except Exception:
                log.exception("fault failed")

        self._delayed[timer] = size
        self._delayed_bytes += size
        timer.start(run, update=True)
        return timer

    def _forget(self, timer: Any) -> None:
        """Stop the timer of a delayed datagram, and subtract its memory, if not yet done."""
        size = self._delayed.pop(timer, None)
        if size is not None:
            self._delayed_bytes -= size
            timer.stop()
            timer.close()
