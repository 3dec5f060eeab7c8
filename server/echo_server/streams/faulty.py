"""The echo set with injected faults."""

from __future__ import annotations

from typing import Any

import structlog

from echo_core.epoll_set import READABLE, Ready
from echo_server.faults import FaultPlan, Strike
from echo_server.metrics.counters import Counter
from echo_server.streams.connection import Connection
from echo_server.streams.echo_set import EchoSet

log = structlog.get_logger()


class FaultyEchoSet(EchoSet):
    """An echo set that injects faults into its reads.

    Args:
        *arguments: as of `EchoSet`.
        plan: which faults strike.
        **named: as of `EchoSet`.
    """

    def __init__(self, *arguments: Any, plan: FaultPlan, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._plan = plan
        self._added = 0
        # Of each connection its number and how many reads it has had.
        self._reads: dict[Connection, list[int]] = {}
        self._timers: dict[Connection, Any] = {}

    def add(self, connection: Connection) -> None:
        """Echo this connection from now on, until it ends; it must be non-blocking.

        Raises:
            OSError: its descriptor cannot be watched.
        """
        super().add(connection)
        self._reads[connection] = [self._added, 0]
        self._added += 1

    def holds(self, connection: Connection) -> bool:
        """Return True while a fault or the rate limit keeps a connection from being read."""
        return connection in self._timers or super().holds(connection)

    def end(self, connection: Connection, reason: Counter) -> None:
        """Close a connection, and count why."""
        del self._reads[connection]
        self._stop_timer(connection)
        super().end(connection, reason)

    def echo(self, ready: Ready) -> None:
        """Serve the connections that are ready, each a descriptor and its events."""
        for descriptor, events in ready:
            connection = self.connections[descriptor]
            try:
                if connection in self._timers:
                    # Watched for nothing, so this is the peer's reset.
                    self.end(connection, Counter.CLOSED_RESET)
                elif events & READABLE:
                    self._read(connection)
                else:
                    self._go_on(connection)
            except OSError as error:
                self._fail(connection, error)
            except Exception:
                log.exception("connection failed", peer=connection.peer)
                self.end(connection, Counter.CLOSED_ERROR)

    def _read(self, connection: Connection) -> None:
        try:
            received = connection.recv_into(self._buffer)
        except BlockingIOError as blocked:
            self._nothing_received(connection, blocked)
            return
        if not received:
            self.end(connection, Counter.CLOSED_END_OF_STREAM)
            return
        connection.received += received
        self._counters.add(Counter.RECEIVED_BYTES, received)
        self._counters.add(Counter.READS)
        number = self._reads[connection]
        strike = self._plan.strike(*number)
        number[1] += 1
        # Until it is sent: what a fault keeps back was received and not sent back.
        connection.unsent = bytes(self._whole[:received])
        if strike is None:
            self._send_unsent(connection)
        else:
            self._counters.add(strike.fault.kind)
            self._inject(connection, strike)

    def _inject(self, connection: Connection, strike: Strike) -> None:
        data = bytes(connection.unsent)
        match strike.fault.kind:
            case Counter.FAULT_CORRUPT:
                connection.unsent = strike.corrupted(data)
                self._send_unsent(connection)
            case Counter.FAULT_TRUNCATE:
                connection.unsent = data[self._send_now(connection, strike.truncated(data)) :]
                self.end(connection, Counter.CLOSED_FAULT_INJECTED)
            case Counter.FAULT_CLOSE:
                self.end(connection, Counter.CLOSED_FAULT_INJECTED)
            case Counter.FAULT_RESET:
                connection.abort_at_close()
                self.end(connection, Counter.CLOSED_FAULT_INJECTED)
            case Counter.FAULT_DELAY:
                self._hold(connection, strike.seconds)
            case Counter.FAULT_STALL:
                connection.unsent = data[self._send_now(connection, data) :]
                self._hold(connection, strike.seconds)

    def _send_now(self, connection: Connection, data: bytes) -> int:
        """Send without blocking; return the number of bytes sent."""
        try:
            sent = connection.send(data) if data else 0
        except BlockingIOError:
            sent = 0
        self._counters.add(Counter.SENT_BYTES, sent)
        return sent

    def _hold(self, connection: Connection, seconds: float) -> None:
        """Suspend a connection for some time, then continue."""

        def go_on() -> None:
            self._stop_timer(connection)
            # An exception that left a callback of the hub would only be printed.
            try:
                if connection.unsent:
                    self._send_rest(connection)
                else:
                    self._read_on(connection)
            except OSError as error:
                self._fail(connection, error)
            except Exception:
                log.exception("connection failed", peer=connection.peer)
                self.end(connection, Counter.CLOSED_ERROR)

        self._change(connection, 0)
        timer = self._hub.loop.timer(seconds)
        timer.start(go_on, update=True)
        self._timers[connection] = timer

    def _stop_timer(self, connection: Connection) -> None:
        timer = self._timers.pop(connection, None)
        if timer is not None:
            timer.stop()
            timer.close()
