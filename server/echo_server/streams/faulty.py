"""The echo set with injected faults."""

from __future__ import annotations

from typing import Any

import structlog

from echo_core.epoll_set import READABLE, Ready
from echo_server.faults import FaultPlan, Injection
from echo_server.metrics.counters import Counter
from echo_server.streams.connection import Connection
from echo_server.streams.echo_set import EchoSet

log = structlog.get_logger()


class FaultyEchoSet(EchoSet):
    """An echo set that injects faults into its reads.

    Args:
        *arguments: the arguments of `EchoSet`.
        plan: the choice of the reads that faults are injected into.
        **named: the keyword arguments of `EchoSet`.
    """

    def __init__(self, *arguments: Any, plan: FaultPlan, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._plan = plan
        self._added = 0
        # For each connection its number, and its number of reads so far.
        self._reads: dict[Connection, list[int]] = {}
        self._timers: dict[Connection, Any] = {}

    def add(self, connection: Connection) -> None:
        """Echo a connection, which must be non-blocking, until it ends.

        Raises:
            OSError: its descriptor cannot be watched.
        """
        super().add(connection)
        self._reads[connection] = [self._added, 0]
        self._added += 1

    def is_suspended(self, connection: Connection) -> bool:
        """Return True while a fault or the rate limit suspends a connection."""
        return connection in self._timers or super().is_suspended(connection)

    def end(self, connection: Connection, reason: Counter) -> None:
        """Close a connection for a reason, and report it to `on_end`."""
        del self._reads[connection]
        self._stop_timer(connection)
        super().end(connection, reason)

    def echo(self, ready: Ready) -> None:
        """Serve the connections that are ready, given as pairs of a descriptor and its events."""
        for descriptor, events in ready:
            connection = self.connections[descriptor]
            try:
                if connection in self._timers:
                    # Suspended, so the event is the peer's reset, which epoll always reports.
                    self.end(connection, Counter.CLOSED_RESET)
                elif events & READABLE:
                    self._read(connection)
                else:
                    self._on_writable(connection)
            except OSError as error:
                self._fail(connection, error)
            except Exception:
                log.exception("connection failed", peer=connection.peer)
                self.end(connection, Counter.CLOSED_ERROR)

    def _read(self, connection: Connection) -> None:
        try:
            received = connection.recv_into(self._buffer)
        except BlockingIOError as blocked:
            self._on_receive_blocked(connection, blocked)
            return
        if not received:
            self.end(connection, Counter.CLOSED_END_OF_STREAM)
            return
        connection.received += received
        self._counters.add(Counter.RECEIVED_BYTES, received)
        self._counters.add(Counter.READS)
        number = self._reads[connection]
        injection = self._plan.choose(*number)
        number[1] += 1
        # Set also if a fault keeps the bytes from being sent: they then count as received only.
        connection.unsent = bytes(self._large_buffer[:received])
        if injection is None:
            self._send_unsent(connection)
        else:
            self._counters.add(injection.fault.kind)
            self._inject(connection, injection)

    def _inject(self, connection: Connection, injection: Injection) -> None:
        data = bytes(connection.unsent)
        match injection.fault.kind:
            case Counter.FAULT_CORRUPT:
                connection.unsent = injection.corrupted(data)
                self._send_unsent(connection)
            case Counter.FAULT_TRUNCATE:
                connection.unsent = data[self._send_now(connection, injection.truncated(data)) :]
                connection.end_both_ways()
                self.end(connection, Counter.CLOSED_FAULT_INJECTED)
            case Counter.FAULT_CLOSE:
                connection.end_both_ways()
                self.end(connection, Counter.CLOSED_FAULT_INJECTED)
            case Counter.FAULT_RESET:
                connection.abort_at_close()
                self.end(connection, Counter.CLOSED_FAULT_INJECTED)
            case Counter.FAULT_DELAY:
                self._suspend(connection, injection.seconds)
            case Counter.FAULT_STALL:
                connection.unsent = data[self._send_now(connection, data) :]
                self._suspend(connection, injection.seconds)

    def _send_now(self, connection: Connection, data: bytes) -> int:
        """Send without blocking; return the number of bytes sent."""
        try:
            sent = connection.send(data) if data else 0
        except BlockingIOError:
            sent = 0
        self._counters.add(Counter.SENT_BYTES, sent)
        return sent

    def _suspend(self, connection: Connection, seconds: float) -> None:
        """Suspend a connection for a time in seconds, then continue to send or read."""

        def resume() -> None:
            self._stop_timer(connection)
            # An exception that escapes from a hub callback would only be logged.
            try:
                if connection.unsent:
                    self._resume_sending(connection)
                else:
                    self._continue_reading(connection)
            except OSError as error:
                self._fail(connection, error)
            except Exception:
                log.exception("connection failed", peer=connection.peer)
                self.end(connection, Counter.CLOSED_ERROR)

        self._watch_for(connection, 0)
        timer = self._hub.loop.timer(seconds)
        timer.start(resume, update=True)
        self._timers[connection] = timer

    def _stop_timer(self, connection: Connection) -> None:
        timer = self._timers.pop(connection, None)
        if timer is not None:
            timer.stop()
            timer.close()
