"""The gate, the waits and the connect rate, which all threads of an engine share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from echo_load.engines.recorder import Recorder
from echo_load.engines.share import Share
from echo_load.engines.shared_schedule import SharedSchedule

# Longer waits are divided.
LONGEST_WAIT_SECONDS = 3600.0
# `abort` does not interrupt sleeps of up to these seconds.
LONGEST_SLEEP_SECONDS = 0.1


class ThreadControl:
    """The control of an engine over its threads, and what the threads share.

    Args:
        share: the share of the generator.
        recorder: receives the times and the failures.

    Attributes:
        share: see above.
        recorder: see above.
        connects: limits the number of connections that are being opened.
        tls: the TLS context; None without TLS.
        options: the options of sockets.
        headers: the PROXY headers; None if connections have none.
        schedule: the schedule of the open loop.
        aborted: True after `abort`.
        verdict: the kind of failure that was given to `abort`.
        origin_ns: instant at which the first stage begins, in nanoseconds of the monotonic clock.
    """

    def __init__(self, share: Share, recorder: Recorder) -> None:
        self.share = share
        self.recorder = recorder
        self.connects = threading.BoundedSemaphore(share.plan.connects_in_flight)
        self.tls = share.tls_context()
        self.options = share.plan.socket_options
        self.headers = share.plan.proxy_headers
        self.schedule = SharedSchedule(share)
        self.aborted = False
        self.verdict: str | None = None
        self.origin_ns = 0
        self._gate = threading.Event()
        self._pace_lock = threading.Lock()
        self._next_connect = 0.0
        self._interrupted = threading.Event()
        self._error: Exception | None = None

    @property
    def started(self) -> bool:
        """True if the gate is open."""
        return self._gate.is_set()

    def start(self, gate_ns: int) -> None:
        """Open the gate: send from an instant on."""
        self.origin_ns = gate_ns
        self.schedule.start(self.origin_ns)
        self._gate.set()

    def abort(self, verdict: str | None) -> None:
        """End all waits of the threads, and open the gate; see `Engine.abort`."""
        self.verdict = verdict
        self.aborted = True
        self._interrupted.set()
        self._gate.set()

    def wait_at_gate(self) -> None:
        """Block a thread until the gate is open and the first stage begins.

        An Event wakes its threads one after the other. Without the instant, the first threads would
        already send, and delay the last ones by seconds.
        """
        self._gate.wait()
        self.sleep_until(self.origin_ns)

    def sleep_until(self, instant_ns: int) -> None:
        """Block a thread until an instant of the monotonic clock, or `abort`."""
        while not self.aborted and (left := instant_ns - time.monotonic_ns()) > 0:
            seconds = min(left / 1e9, LONGEST_WAIT_SECONDS)
            if seconds < LONGEST_SLEEP_SECONDS:
                # More precise than waiting for an event.
                time.sleep(seconds)
            else:
                self._interrupted.wait(seconds - LONGEST_SLEEP_SECONDS / 2)

    def wait_for_turn_to_connect(self) -> None:
        """Block a thread until the connect rate allows another connection."""
        gap = self.share.connect_gap
        if not gap:
            return
        with self._pace_lock:
            turn = max(self._next_connect, time.monotonic())
            self._next_connect = turn + gap
        self.sleep_until(int(turn * 1e9))

    def guarded(self, action: Callable[[], None]) -> None:
        """Call a function in a thread; keep its exception, which `raise_error` raises."""
        try:
            action()
        except Exception as error:  # noqa: BLE001  # `raise_error` raises it
            self._error = self._error or error

    def raise_error(self) -> None:
        """Raise the first exception of a thread, if there was one."""
        if self._error is not None:
            raise self._error
