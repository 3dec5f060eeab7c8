"""The engine with blocking sockets: a thread per connection, or a greenlet.

In a process that gevent has monkey-patched, a `threading.Thread` is a greenlet: the engine
`greenlets` is this one in such a process.
"""

from __future__ import annotations

import sys
import threading
import time

from echo_client.failure_kinds import FailureKind
from echo_load.engines.connection_thread import ConnectionThread
from echo_load.engines.evidence import Failure
from echo_load.engines.recorder import Recorder
from echo_load.engines.share import Share
from echo_load.engines.thread_control import ThreadControl
from echo_load.engines.timers import sleep_exactly
from echo_load.measure.counts import Counts

# The default stack of 8 MiB per thread would add up to gigabytes; a thread needs little of it.
STACK_SIZE = 256 * 1024
# A thread that waits for the GIL wakes up once per switch interval to request it. These threads
# release it at every receive anyway. At the default of 5 ms, the wake-ups of 5000 threads kept a
# core busy: 200 messages per second instead of 20,000.
SWITCH_SECONDS = 0.5


class ThreadsEngine:
    """An engine with a thread for each connection of a share, named `conn-00001` and so on.

    Args:
        share: the share of the generator.
        recorder: receives the times and the failures.

    Attributes:
        share: see above.
        recorder: see above.
        control: controls the threads.
    """

    def __init__(self, share: Share, recorder: Recorder) -> None:
        self.share = share
        self.recorder = recorder
        self.control = ThreadControl(share, recorder)
        self._ends_when_idle = share.ends_when_idle
        self._clients = [ConnectionThread(self.control, number) for number in share.numbers]

    def open(self) -> None:
        """Start the threads, which open their connections; return immediately."""
        threading.stack_size(STACK_SIZE)
        sys.setswitchinterval(SWITCH_SECONDS)
        sleep_exactly()
        # Starting a thread blocks until it runs, so a separate thread starts the thousands.
        starter = threading.Thread(
            target=self.control.guarded, args=[self._start_clients], name="starter", daemon=True
        )
        starter.start()

    @property
    def settled(self) -> bool:
        """True if every initial connection is established or has failed."""
        self.control.raise_error()
        return all(client.settled for client in self._clients)

    def start(self, gate_ns: int) -> None:
        """Open the gate: send from an instant on, until the end of the share."""
        self.control.start(gate_ns)

    def abort(self, verdict: str | None = None) -> None:
        """Stop immediately: wake every thread, even one that is blocked in a receive.

        Args:
            verdict: kind of failure that is counted for each connection on which a reply is still
                expected; None to count nothing.
        """
        self.control.abort(verdict)
        for client in self._clients:
            client.abort()

    @property
    def ended(self) -> bool:
        """True if every connection has ended and nothing more is to be sent."""
        self.control.raise_error()
        over = self.control.aborted or self._ends_when_idle
        over = over or time.monotonic_ns() >= self.share.end_ns.value
        return over and all(client.ended for client in self._clients)

    def join(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for all threads; return False if some have not ended."""
        deadline = time.monotonic() + timeout
        for client in self._clients:
            if client.is_alive():
                client.join(max(0.0, deadline - time.monotonic()))
        return not any(client.is_alive() for client in self._clients)

    def counts(self) -> Counts:
        """Return the counts since the beginning; move the times of the threads to the recorder."""
        counts = Counts()
        for client in self._clients:
            client.counts.messages += client.times.move_to(self.recorder.times)
            counts.add(client.counted())
        if self.ended and (unsent := self.control.schedule.rest()):
            counts.errors[FailureKind.UNSENT] += unsent
        return counts

    def messages_by_connection(self) -> list[int]:
        """Return the number of completed round trips of each connection, as of `counts`."""
        return [client.counts.messages for client in self._clients]

    def _start_clients(self) -> None:
        """Start the threads, or cancel those that cannot be started."""
        failure: Failure | None = None
        for client in self._clients:
            if failure is not None or self.control.aborted:
                client.cancel(failure)
                continue
            try:
                client.start()
            except RuntimeError as error:
                # The system allows no more threads (pthread_create(3), EAGAIN).
                failure = Failure(FailureKind.NO_THREAD, str(error))
                client.cancel(failure)
