"""A silence of a target is found although this process, or the machine, often stands still."""

from __future__ import annotations

import ctypes
import socket
import threading

import pytest

from echo_load import Interruption, Observer, Plan, Progress, WatchPlan, watch
from support.misbehaving import Service

pytestmark = pytest.mark.slow

TIMEOUT = 0.5
# Shorter than the timeout, so that a pause begins or ends while any probe waits for it.
PAUSED_SECONDS, RUNNING_SECONDS = 0.15, 0.1


class EchoesUntilSilent:
    """Echo until it is told to be silent; a behaviour."""

    def __init__(self) -> None:
        self.is_silent = threading.Event()

    def __call__(self, connection: socket.socket, _over: threading.Event) -> None:
        while data := connection.recv(65536):
            if not self.is_silent.is_set():
                connection.sendall(data)


class SilencesAfterPauses(Observer):
    """Silence the target after some pauses, and end the watch after an outage or many more.

    Args:
        behaviour: the target.
        interruption: the request to end the watch.
    """

    def __init__(self, behaviour: EchoesUntilSilent, interruption: Interruption) -> None:
        self._behaviour = behaviour
        self._interruption = interruption
        self.outages_before = 0

    def progressed(self, progress: Progress) -> None:
        """Judge by what the watch has found so far."""
        found = progress.watch
        assert found is not None
        if len(found.pauses) >= 8 and not self._behaviour.is_silent.is_set():
            self.outages_before = len(found.outages)
            self._behaviour.is_silent.set()
        if len(found.outages) > self.outages_before or len(found.pauses) >= 60:
            self._interruption.requested = True


def pause_often(is_over: threading.Event) -> None:
    """Keep all threads of this process from running, time and again."""
    # Unlike other calls, those of a PyDLL keep Python's lock.
    c_library = ctypes.PyDLL(None)
    while not is_over.wait(RUNNING_SECONDS):
        c_library.usleep(int(PAUSED_SECONDS * 1e6))


def test_a_silence_is_found_although_there_is_a_pause_in_each_probe() -> None:
    behaviour, interruption = EchoesUntilSilent(), Interruption()
    observer = SilencesAfterPauses(behaviour, interruption)
    is_over = threading.Event()
    pausing = threading.Thread(target=pause_often, args=(is_over,))
    with Service(behaviour) as service:
        plan = WatchPlan(plan=Plan(targets=(service.target,), connections=4, timeout=TIMEOUT))
        pausing.start()
        try:
            found = watch(plan, observer=observer, interruption=interruption).watch
        finally:
            is_over.set()
            pausing.join()
    assert found is not None
    assert observer.outages_before == 0
    (outage,) = found.outages
    assert (outage.kind, outage.ongoing) == ("silent", True)
