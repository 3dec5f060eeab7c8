"""What `echo-load watch` concludes from the time in which it was itself stopped."""

from __future__ import annotations

import select
import signal
import socket
import threading
import time

import pytest

from echo_load.results.watch import WatchResult
from support.misbehaving import Service
from support.processes import (
    DEADLINE,
    StartServer,
    established,
    reset,
    stop,
    until,
)
from support.watching import Watching

pytestmark = pytest.mark.slow


class EchoesUntilIdle:
    """A service that echoes while it may, and resets a connection that is idle for too long.

    Args:
        seconds: longest time for which a connection may be idle.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.waiting = threading.Semaphore(0)

    def __call__(self, connection: socket.socket, _over: threading.Event) -> None:
        connection.settimeout(self._seconds)
        try:
            while data := connection.recv(65536):
                if not self.may_answer.is_set():
                    self.waiting.release()
                    assert self.may_answer.wait(DEADLINE)
                connection.sendall(data)
        except TimeoutError:
            reset(connection)


def test_a_watch_that_was_stopped_itself_does_not_blame_the_target() -> None:
    behaviour = EchoesUntilIdle(2.0)
    with Service(behaviour) as service:
        watching = Watching(service.target, "--prometheus", "0")
        until(lambda: watching.figure("connections_open") >= 10, "connections")
        # Some connections are reset while they are idle, some after a reply that is not yet read.
        behaviour.may_answer.clear()
        for _ in range(5):
            assert behaviour.waiting.acquire(timeout=DEADLINE)
        stop(watching.process.pid)
        behaviour.may_answer.set()
        until(lambda: not established(service.port), "the connections to be reset")
        watching.process.send_signal(signal.SIGCONT)
        watching.wait_for("the watch itself paused")
        until(lambda: watching.figure("reconnects_total") == 10, "new connections")
        code, found = watching.stop()
    assert (code, found.outages, found.availability, found.messages_lost) == (0, [], 1.0, 0)
    assert found.disregarded >= found.reconnects == 10
    longest = max(found.pauses, key=lambda pause: pause.seconds)
    assert longest.seconds == pytest.approx(longest.end - longest.begin)
    assert longest.seconds > 1.4


def test_an_outage_that_began_while_the_watch_was_stopped_is_found(
    start_server: StartServer,
) -> None:
    server = start_server()
    watching = Watching(server.url, timeout="2s")
    stop(watching.process.pid)
    server.process.kill()
    server.wait()
    watching.process.send_signal(signal.SIGCONT)
    watching.wait_for("outage of")
    _, found = watching.stop()
    assert [(one.kind, one.ongoing) for one in found.outages] == [("refused", True)]


class EchoesUntilReset:
    """Echoes, and resets as many idle connections as `resets` is released for."""

    def __init__(self) -> None:
        self.resets = threading.Semaphore(0)

    def __call__(self, connection: socket.socket, over: threading.Event) -> None:
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        while not over.is_set():
            if poll.poll(20):
                if not (data := connection.recv(65536)):
                    return
                connection.sendall(data)
            elif self.resets.acquire(blocking=False):
                reset(connection)
                return


def test_losses_while_the_watch_was_stopped_are_disregarded_though_the_target_is_gone() -> None:
    behaviour = EchoesUntilReset()
    with Service(behaviour) as service:
        watching = Watching(service.target, "--prometheus", "0")
        until(lambda: watching.figure("connections_open") >= 10, "connections")
        stop(watching.process.pid)
        stopped = time.monotonic()
        behaviour.resets.release(1000)
        until(lambda: not established(service.port), "the connections to be reset")
        until(lambda: time.monotonic() > stopped + 0.3, "a pause that the watch notices")
    watching.process.send_signal(signal.SIGCONT)
    watching.wait_for("outage of")
    _, found = watching.stop()
    assert found.disregarded >= 10
    (outage,) = found.outages
    assert (set(outage.errors), outage.kind, outage.ongoing) == ({"refused"}, "refused", True)


def found_after_a_pause() -> WatchResult:
    """Watch one connection, which is reset two seconds after a pause; return what was found."""
    behaviour = EchoesUntilReset()
    with Service(behaviour) as service:
        # Its next probe is due in a minute.
        watching = Watching(
            *(service.target, "-c", "1", "--interval", "60s", "--prometheus", "0"),
        )
        until(lambda: watching.figure("connections_open") == 1, "the connection")
        stop(watching.process.pid)
        stopped = time.monotonic()
        until(lambda: time.monotonic() > stopped + 0.3, "a pause that the watch notices")
        watching.process.send_signal(signal.SIGCONT)
        watching.wait_for("the watch itself paused")
        until(lambda: time.monotonic() > stopped + 2.3, "two more seconds")
        behaviour.resets.release()
        until(lambda: watching.figure("reconnects_total") == 1, "a new connection")
        _, found = watching.stop()
    return found


def test_a_loss_long_after_a_pause_is_not_disregarded() -> None:
    for _ in range(5):
        found = found_after_a_pause()
        # On a busy machine there may be other pauses.
        if len(found.pauses) == 1:
            break
    assert len(found.pauses) == 1
    assert found.disregarded == 0
    assert [set(one.errors) for one in found.outages] == [{"reset"}]
