"""The tutorial's stress test made real: an OS thread and a blocking socket a connection."""

from __future__ import annotations

import sys
import threading
import time
from array import array

from echo_client.connection import EchoConnection
from echo_client.errors import ClientError, ReplyTimeoutError
from echo_client.payload import hello
from echo_load.engines import Counts, Share, Snapshot
from echo_load.latency import LatencyHistogram, by_second

# A thread needs little of the 8 MiB of stack that it would be given, and thousands need a lot.
STACK_SIZE = 256 * 1024
# Whoever waits for the GIL wakes up once an interval to ask for it. These threads give it up at
# every receive anyhow, and 5000 of them waking every 5 ms, the default, kept a core busy with that
# alone: 200 messages a second, against 20,000.
SWITCH_SECONDS = 0.5


class ThreadsEngine:
    """Runs a share of a stage's connections as threads named `conn-00001` and on."""

    def __init__(self, share: Share) -> None:
        self.share = share
        self.connects = threading.BoundedSemaphore(share.connects_in_flight)
        self._gate = threading.Event()
        self.aborted = False
        self.verdict: str | None = None
        self._begin_ns = 0
        self._last_reply_ns = 0
        self._clients = [_Client(self, number) for number in share.numbers]

    def open(self) -> None:
        """Start the threads; each connects as soon as the semaphore lets it."""
        threading.stack_size(STACK_SIZE)
        sys.setswitchinterval(SWITCH_SECONDS)
        # Starting a thread waits until it runs: with thousands that is left to one of its own.
        threading.Thread(target=self._start_clients, name="starter", daemon=True).start()

    @property
    def settled(self) -> bool:
        """Every connection is established or has failed."""
        return all(client.settled for client in self._clients)

    def start(self, begin_ns: int) -> None:
        """Open the gate; what comes through waits for the instant."""
        self._begin_ns = begin_ns
        self._gate.set()

    def wait_at_gate(self) -> None:
        """Wait, in a thread of this engine, until the gate is open and the instant has come.

        Both, because an Event lets its threads go one after the other: the first would send, and
        hold up the last for seconds.
        """
        self._gate.wait()
        time.sleep(max(0, self._begin_ns - time.monotonic_ns()) / 1e9)

    def abort(self, verdict: str | None = None) -> None:
        """Wake every thread, also out of a blocking receive."""
        self.verdict = verdict
        self.aborted = True
        self._gate.set()
        for client in self._clients:
            client.abort()

    @property
    def ended(self) -> bool:
        """Every thread has ended."""
        return all(client.ended for client in self._clients)

    def join(self, timeout: float) -> bool:
        """Join the threads, all of them within `timeout` seconds; False if some still run."""
        deadline = time.monotonic() + timeout
        for client in self._clients:
            if client.is_alive():
                client.join(max(0.0, deadline - time.monotonic()))
        return not any(client.is_alive() for client in self._clients)

    def snapshot(self) -> Snapshot:
        """Add up what the threads have counted."""
        counts = Counts()
        trips, replies, connects = array("q"), array("q"), array("q")
        for client in self._clients:
            client.add_to(counts, trips, replies, connects)
        self._last_reply_ns = max(self._last_reply_ns, max(replies, default=0))
        connect = LatencyHistogram()
        connect.record(connects)
        response = by_second(trips, replies, self._begin_ns)
        return Snapshot(counts, response, connect, self._last_reply_ns)

    def _start_clients(self) -> None:
        refused = False
        for client in self._clients:
            if refused or self.aborted:
                client.cancel("no_thread" if refused else None)
                continue
            try:
                client.start()
            except RuntimeError:
                # The system gives out no more threads (pthread_create(3), EAGAIN).
                refused = True
                client.cancel("no_thread")


class _Client(threading.Thread):
    """One connection: connects, waits at the gate, then sends and checks in a closed loop.

    Its counts are written by itself alone and read by the engine; each step of taking its latencies
    away is one operation under the GIL.
    """

    def __init__(self, engine: ThreadsEngine, number: int) -> None:
        super().__init__(name=f"conn-{number:05d}", daemon=True)
        self.settled = False
        self.ended = False
        self._engine = engine
        self._connection: EchoConnection | None = None
        self._opened = False
        self._lost = False
        self._messages = 0
        self._mismatches = 0
        self._retransmits = 0
        self._error: str | None = None
        self._trips = array("q")
        self._replies = array("q")
        self._connect_times = array("q")

    def run(self) -> None:
        try:
            connection = self._connect()
            self.settled = True
            if connection is not None:
                with connection:
                    self._engine.wait_at_gate()
                    self._converse(connection)
                    self._retransmits = connection.retransmits()
        finally:
            self.settled = self.ended = True

    def cancel(self, error: str | None) -> None:
        """End without having run."""
        self._error = error
        self.settled = self.ended = True

    def abort(self) -> None:
        """Wake the thread if it waits for a reply; the engine has said that it is over."""
        if self._connection is not None and not self.ended:
            self._connection.abort()

    def add_to(
        self, counts: Counts, trips: array[int], replies: array[int], connects: array[int]
    ) -> None:
        """Add what was counted, and move the latencies and the instants of the replies."""
        counts.opened += self._opened
        counts.lost += self._lost
        counts.messages += self._messages
        counts.retransmits += self._retransmits
        if self._connection is not None:
            counts.bytes_sent += self._connection.bytes_sent
            counts.bytes_received += self._connection.bytes_received
        if self._mismatches:
            counts.errors["mismatch"] += self._mismatches
        if self._error is not None:
            counts.errors[self._error] += 1
            counts.failed += not self._opened
        # The thread appends to replies last: each of them has its latency in trips.
        complete = len(self._replies)
        for source, target in ((self._trips, trips), (self._replies, replies)):
            target.extend(source[:complete])
            del source[:complete]
        connects.extend(self._connect_times)
        del self._connect_times[:]

    def _connect(self) -> EchoConnection | None:
        share = self._engine.share
        with self._engine.connects:
            if self._engine.aborted:
                return None
            begin = time.monotonic_ns()
            try:
                connection = EchoConnection.connect(
                    share.addresses, timeout=share.timeout, connect_timeout=share.connect_timeout
                )
            except ClientError as error:
                self._error = error.kind
                return None
            self._connect_times.append(time.monotonic_ns() - begin)
        self._connection = connection
        self._opened = True
        return connection

    def _converse(self, connection: EchoConnection) -> None:
        until = self._engine.share.end_ns
        clock = time.monotonic_ns
        record_trip, record_reply = self._trips.append, self._replies.append
        round_trip = connection.round_trip
        end = clock()
        sequence = 0
        try:
            while end < until.value:
                message = hello(sequence)
                begin = clock()
                reply = round_trip(message)
                end = clock()
                record_trip(end - begin)
                record_reply(end)
                self._messages += 1
                if reply != message:
                    self._mismatches += 1
                sequence += 1
        except ReplyTimeoutError as error:
            self._give_up("timeout" if error.received else self._late_or_never(connection))
        except ClientError as error:
            self._give_up(error.kind)

    def _late_or_never(self, connection: EchoConnection) -> str:
        """Tell a service that is slow from one that says nothing: wait once more as long."""
        try:
            return "timeout" if connection.receive() else "closed"
        except ReplyTimeoutError:
            return "no_reply"
        except ClientError as error:
            return error.kind

    def _give_up(self, kind: str) -> None:
        counted = self._engine.verdict if self._engine.aborted else kind
        if counted is not None:
            self._error = counted
            self._lost = True
