"""The hub engine: the work for each connection, and the periodic work.

All connections are in one epoll set, which gevent's hub watches. The work for each message is in
`exchange`.
"""

from __future__ import annotations

import select
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from gevent import monkey
from gevent.event import Event
from gevent.hub import get_hub

from echo_client.failure_kinds import FailureKind
from echo_core.epoll_set import BATCH, EpollSet, Ready
from echo_core.units import format_duration
from echo_load.engines.evidence import Failure
from echo_load.engines.hub import datagrams
from echo_load.engines.hub.connection import ConnectionSlot, HubConnection
from echo_load.engines.hub.dispatcher import Dispatcher
from echo_load.engines.hub.exchange import Exchange
from echo_load.engines.hub.lifetimes import Lifetimes
from echo_load.engines.hub.opening import Opener
from echo_load.engines.hub.timer_queue import TimerQueue
from echo_load.engines.recorder import Recorder
from echo_load.engines.share import NEVER, Share
from echo_load.measure.counts import Counts

# Interval at which overdue replies are searched for: a share of the timeout, within these bounds.
_SWEEP_SHARE = 0.1
_SHORTEST_SWEEP_SECONDS = 0.01
_LONGEST_SWEEP_SECONDS = 0.5
# Time for which a UDP socket stays open for duplicate or late datagrams.
_LINGER_SECONDS = 0.2
_UNTIL_END = "no reply came until the end of the test"


class HubEngine:
    """An engine that runs the connections of a share on the hub of this process.

    Args:
        share: the share of the generator.
        recorder: receives the times and the failures.
    """

    def __init__(self, share: Share, recorder: Recorder) -> None:
        plan = share.plan
        self._share = share
        self._recorder = recorder
        self._counts = Counts()
        self._hub = get_hub()
        # Monkey-patching removes epoll from the select module.
        epoll: select.epoll = monkey.get_original("select", "epoll")()
        self._set = EpollSet(self._hub.loop, epoll, self._on_ready)
        self._exchange = Exchange(
            share,
            recorder,
            self._counts,
            self._set,
            on_answered=self._on_answered,
            on_writable=self._continue,
            on_lost=self._lose,
            on_other=self._serve_other,
            after_step=self._dispatch,
        )
        self._connections = self._exchange.connections
        schedule = share.schedule()
        # None in a closed loop.
        self._dispatcher = (
            Dispatcher(schedule, self._set, recorder, self._exchange) if schedule else None
        )
        # Completed round trips, and messages given up without a reply, by connection.
        self._made: dict[int, int] = {}
        self._missed: Counter[int] = Counter()
        timeline = share.lifetimes
        self._lifetimes = Lifetimes(share, timeline) if timeline else None
        self._ends_when_idle = share.ends_when_idle
        self._timeout_ns = int(plan.reply_timeout * 1e9)
        sweep = min(plan.reply_timeout * _SWEEP_SHARE, _LONGEST_SWEEP_SECONDS)
        self._sweep_ns = int(max(sweep, _SHORTEST_SWEEP_SECONDS) * 1e9)
        # Instants of the last search for overdue replies, and of the last periodic work.
        self._swept_ns = self._ticked_ns = 0
        # No reply can be overdue before this instant.
        self._overdue_ns = 0
        self._tick_seconds = share.tick_seconds
        self._started = self._ending = False
        self._done = Event()
        self._error: Exception | None = None
        self._origin_ns = 0

        self._timer_queue = TimerQueue(self._hub.loop, self._guarded)
        self._opener = Opener(
            share,
            self._set,
            self._counts,
            recorder,
            self._timer_queue,
            on_open=self._on_open,
            is_wanted=self._lifetimes.is_alive if self._lifetimes else lambda _slot: True,
        )
        self._tick: Any = self._hub.loop.timer(self._tick_seconds, self._tick_seconds)

    def open(self) -> None:
        """Begin to open the initial connections; return immediately."""
        slots = (
            self._lifetimes.first() if self._lifetimes else map(ConnectionSlot, self._share.numbers)
        )
        for slot in slots:
            self._opener.add(slot, first=True)
        # The gate may open before the first periodic work.
        self._ticked_ns = time.monotonic_ns()
        self._tick.start(self._on_tick)
        self._guarded(self._opener.open_some)

    @property
    def settled(self) -> bool:
        """True if every initial connection is established or has failed."""
        self._raise()
        return self._opener.settled

    def start(self, gate_ns: int) -> None:
        """Open the gate: send from an instant on, until the end of the share."""
        self._origin_ns = gate_ns
        if self._dispatcher is not None:
            self._dispatcher.start(self._origin_ns)
            self._dispatch()
        delay = max(0, gate_ns - time.monotonic_ns()) / 1e9
        self._gate = self._hub.loop.timer(delay)
        self._gate.start(self._guarded, self._begin)

    def abort(self, verdict: str | None = None) -> None:
        """Stop immediately; count the verdict for each connection that expects a reply."""
        for connection in list(self._connections.values()):
            if verdict is not None and connection.waits:
                self._note(connection, Failure(FailureKind(verdict), _UNTIL_END))
                self._counts.lost += 1
            self._close(connection)
        self._opener.stop()
        self._end()

    @property
    def ended(self) -> bool:
        """True if every connection has ended and nothing more is to be sent."""
        self._raise()
        return self._done.is_set()

    def join(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for the end; return False if it takes longer."""
        return self._done.wait(timeout)

    def counts(self) -> Counts:
        """Return the counts since the beginning."""
        return self._counts.copy()

    def messages_by_connection(self) -> list[int]:
        """Return the number of completed round trips of each connection."""
        for connection in self._connections.values():
            self._note_made(connection)
        return [self._made.get(number, 0) for number in self._share.numbers]

    # Opening connections, and continuing them.

    def _begin(self) -> None:
        """Open the gate: send the first message on each connection."""
        self._started = True
        self._opener.start()
        if self._lifetimes:
            self._lifetimes.start(
                self._origin_ns, self._timer_queue, self._begin_lifetime, self._end_lifetime
            )
        if self._dispatcher is None:
            self._begin_some(deque(self._connections.values()))

    def _begin_some(self, waiting: deque[HubConnection]) -> None:
        """Send on a batch of connections at a time, so that replies are handled in between."""
        for _ in range(min(BATCH, len(waiting))):
            connection = waiting.popleft()
            if connection.fileno() >= 0 and not connection.waits:
                self._send_on(connection)
        if waiting:
            self._hub.loop.run_callback(self._guarded, self._begin_some, waiting)

    def _on_open(self, connection: HubConnection) -> None:
        """Add an established connection, and send on it if messages are to be sent now."""
        self._connections[connection.fileno()] = connection
        connection.head = self._share.payload.head(connection.number)
        connection.stop_at = self._share.stop_at(connection.number, connection.sequence)
        if self._lifetimes and not self._lifetimes.add(connection):
            connection.over = True
            connection.stop_at = 0
        if self._dispatcher is not None:
            self._dispatcher.add(connection)
            self._dispatch()
        elif self._started:
            self._send_on(connection)

    def _begin_lifetime(self, slot: ConnectionSlot) -> None:
        if time.monotonic_ns() < self._share.end_ns.value:
            self._opener.add(slot)

    def _end_lifetime(self, connection: HubConnection) -> None:
        connection.over = True
        connection.stop_at = 0
        if not connection.waits:
            self._finish(connection)

    def _on_answered(self, connection: HubConnection) -> None:
        """Continue or end a connection that has received a reply."""
        connection.failures = 0
        self._continue(connection)

    def _continue(self, connection: HubConnection) -> None:
        """Continue or end a connection on which more messages may be sent."""
        if connection.over or self._ending:
            if not connection.waits:
                self._close_answered(connection, self._finish)
        elif self._dispatcher is None:
            self._send_on(connection)
        elif connection.sequence >= connection.stop_at:
            if not connection.waits:
                self._close_answered(connection, self._renew)
        else:
            self._dispatcher.add(connection)

    def _send_on(self, connection: HubConnection) -> None:
        """In a closed loop, send up to the limit in flight, or end or replace the connection."""
        now = time.monotonic_ns()
        if now < self._share.end_ns.value:
            while (count := self._exchange.capacity(connection)) > 0:
                self._exchange.send(connection, count, now)
                if connection.fileno() < 0:
                    return
        if not connection.waits:
            over = now >= self._share.end_ns.value or self._is_through(connection)
            self._close_answered(connection, self._finish if over else self._renew)

    def _is_through(self, connection: HubConnection) -> bool:
        """Return whether a connection has sent all of its messages, or is to be closed."""
        quota = self._share.quota(connection.number)
        return connection.over or (quota is not None and connection.sequence >= quota)

    # Closing.

    def _close_answered(
        self, connection: HubConnection, close: Callable[[HubConnection], None]
    ) -> None:
        """Close a connection after its last reply, unless more bytes came with that."""
        if not self._exchange.take_surplus(connection):
            close(connection)

    def _lose(self, connection: HubConnection, failure: Failure | None) -> None:
        """Close a connection that has failed, and open it again if the plan says so.

        Args:
            connection: the connection.
            failure: the failure; None if it has been counted already.
        """
        if connection.fileno() < 0:
            return
        if failure is not None:
            self._note(connection, failure)
        self._counts.lost += 1
        connection.failures += 1
        through = self._is_through(connection)
        self._close(connection)
        self._missed[connection.number] += connection.messages_in_flight
        if through or self._ending or self._share.gives_up(connection.failures):
            self._rest(connection)
            return
        if connection.failures == 1:
            self._opener.add(connection.slot())
        else:
            self._opener.again(connection.slot())

    def _note(self, connection: HubConnection, failure: Failure) -> None:
        """Count the failure of a connection; keep its evidence if it is the first of its kind."""
        evidence, in_flight = self._recorder.evidence, connection.listed()
        self._counts.errors[failure.kind] += in_flight.failed(failure.kind)
        if (begun := in_flight.begun(failure.kind)) is not None:
            evidence.add_reply(connection.number, begun)
        evidence.add_failure(connection.number, failure.kind, in_flight.oldest, failure.reason)

    def _renew(self, connection: HubConnection) -> None:
        """Close a connection that has sent `churn` messages, and open another one in its slot."""
        if connection.fileno() < 0:
            return
        self._close(connection)
        self._opener.add(connection.slot())
        self._opener.open_some()

    def _finish(self, connection: HubConnection) -> None:
        """Close a connection that sends nothing more; over UDP, after a time for late datagrams."""
        if not connection.datagram:
            self._end_connection(connection)
        elif not connection.lingers:
            connection.over = connection.lingers = True
            instant = time.monotonic_ns() + int(_LINGER_SECONDS * 1e9)
            self._timer_queue.at(instant, lambda: self._end_connection(connection))

    def _end_connection(self, connection: HubConnection) -> None:
        if connection.fileno() >= 0:
            self._close(connection)
            self._rest(connection)

    def _rest(self, connection: HubConnection) -> None:
        """Leave a closed connection closed until its next period, if any."""
        if self._lifetimes:
            self._lifetimes.rest(connection.number)

    def _close(self, connection: HubConnection) -> None:
        if connection.fileno() < 0:
            return
        self._note_made(connection)
        self._counts.closed += 1
        if self._lifetimes:
            self._lifetimes.close(connection)
        information = connection.tcp_info()
        if information is not None:
            self._counts.retransmits += information.retransmits
            self._recorder.times.kernel.append(information.round_trip_us * 1000)
        # Closing also removes it from the epoll set.
        del self._connections[connection.fileno()]
        connection.close()

    def _note_made(self, connection: HubConnection) -> None:
        given_up = connection.messages_in_flight + self._missed[connection.number]
        self._made[connection.number] = connection.sequence - given_up

    def _dispatch(self) -> None:
        """In an open loop, send the messages that are due."""
        if self._dispatcher is not None:
            self._dispatcher.dispatch()

    def _serve_other(self, descriptor: int, events: int) -> None:
        """Handle an event of the timer, or of a connection that is being opened.

        The descriptor may also be that of a connection that was closed in this batch, and may have
        been reused for a new one.
        """
        if self._dispatcher is not None and descriptor == self._dispatcher.descriptor:
            self._dispatcher.timer_is_ready()
            return
        opening = self._opener.opening.get(descriptor)
        if opening is not None:
            self._opener.proceed(opening, events)

    # Periodic work, and the end.

    def _on_ready(self, ready: Ready) -> None:
        self._guarded(self._exchange.serve, ready)

    def _on_tick(self) -> None:
        self._guarded(self._do_periodic_work)

    def _guarded(self, action: Callable[..., None], *arguments: Any) -> None:
        """Call a function; keep its exception, which would stop the watcher, for `_raise`."""
        try:
            action(*arguments)
        except Exception as error:  # noqa: BLE001  # `_raise` raises it
            self._error = self._error or error
            self._done.set()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _do_periodic_work(self) -> None:
        """Record the delay of the hub, open connections, and check for timeouts and the end."""
        now = time.monotonic_ns()
        if self._started:
            late = now - self._ticked_ns - int(self._tick_seconds * 1e9)
            self._recorder.times.hub_lag.append(max(0, late))
        self._ticked_ns = now
        self._opener.open_some()
        if now - self._swept_ns >= self._sweep_ns:
            self._swept_ns = now
            self._opener.sweep(now)
            if now >= self._overdue_ns:
                self._overdue_ns = self._sweep(now)
        if self._started:
            self._check_end(now)

    def _sweep(self, now: int) -> int:
        """Handle replies that have not arrived within the timeout.

        Returns:
            The earliest instant at which another reply can be overdue.
        """
        # That of a message that is sent from now on.
        next_ns = now + self._timeout_ns
        for connection in list(self._connections.values()):
            if not connection.waits:
                continue
            oldest_ns = connection.oldest_ns
            age = now - oldest_ns
            if age <= self._timeout_ns:
                next_ns = min(next_ns, oldest_ns + self._timeout_ns)
                continue
            # Until it is answered or lost, something can happen to it at any time.
            next_ns = now
            if connection.datagram:
                self._expire(connection, now)
            elif connection.in_flight is not None and connection.in_flight.partial:
                reason = f"not all of a reply came within {format_duration(self._timeout_ns / 1e9)}"
                self._lose(connection, Failure(FailureKind.TIMEOUT, reason))
            elif not connection.overdue:
                # A second timeout distinguishes a late reply from a missing one.
                connection.listed()
                connection.overdue = True
            elif age > 2 * self._timeout_ns:
                self._lose(connection, Failure(FailureKind.NO_REPLY, self._late(2)))
        return next_ns

    def _late(self, timeouts: int) -> str:
        return f"no reply came within {format_duration(timeouts * self._timeout_ns / 1e9)}"

    def _expire(self, connection: HubConnection, now: int) -> None:
        """Count datagrams as lost that were not answered within the timeout, and continue."""
        oldest = connection.listed().oldest
        lost = datagrams.expire(connection, now - self._timeout_ns, self._counts)
        self._missed[connection.number] += lost
        for _ in range(lost):
            if connection.fileno() >= 0:
                self._on_answered(connection)
        if lost:
            self._recorder.evidence.add_failure(
                connection.number, FailureKind.LOST, oldest, self._late(1)
            )
            # If no connection was free, there may be no reply that would trigger this.
            self._dispatch()

    def _check_end(self, now: int) -> None:
        """Close idle connections, and then end the engine, when nothing more is to be sent."""
        if not self._ending and self._is_over(now):
            self._ending = True
            self._opener.stop()
            for connection in list(self._connections.values()):
                if not connection.waits and not connection.over:
                    self._finish(connection)
        later = self._lifetimes is not None and not self._ending and self._lifetimes.is_to_go_on()
        may_end = self._ending or (self._ends_when_idle and not later)
        if may_end and not self._connections and self._opener.idle:
            self._count_unsent(self._share.due_until_ns)
            self._end()

    def _is_over(self, now: int) -> bool:
        """Return whether nothing more is to be sent.

        In an open loop, overdue messages may be sent until one reply timeout after the end.
        """
        end_ns = self._share.end_ns.value
        if self._dispatcher is None:
            return now >= end_ns
        if now >= end_ns + self._timeout_ns:
            self._count_unsent(now)
        elif end_ns <= now and end_ns < self._dispatcher.due_ns:
            # The end was set to an earlier instant: the rest of the schedule is due after it.
            self._dispatcher.rest(end_ns)
        return self._dispatcher.through or (self._dispatcher.due_ns == NEVER and now >= end_ns)

    def _count_unsent(self, until_ns: int) -> None:
        """End the schedule; count messages that were due and not sent, unless the test was stopped.

        Args:
            until_ns: instant up to which they were due, in nanoseconds of the monotonic clock.
        """
        if self._dispatcher is None:
            return
        unsent = self._dispatcher.rest(until_ns)
        if unsent and self._share.end_ns.value:
            self._counts.errors[FailureKind.UNSENT] += unsent

    def _end(self) -> None:
        """Close the timers and the epoll set, and report the end."""
        if not self._done.is_set():
            self._tick.stop()
            self._tick.close()
            self._timer_queue.close()
            if self._dispatcher is not None:
                self._dispatcher.close()
            self._set.close()
            self._done.set()
