"""`echo-load watch`: outages of servers that are really killed, stopped, rolled and blocked."""

from __future__ import annotations

import itertools
import select
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from echo_load.results.result import Result
from echo_load.results.watch import WatchResult
from support.certificates import make_certificates
from support.misbehaving import Service, resets, silent, wrong
from support.namespaces import inside, network_namespace
from support.processes import (
    DEADLINE,
    LOAD,
    SERVER,
    StartServer,
    environment,
    reset,
    run,
    stop,
    sum_of_metric,
    until,
)

pytestmark = pytest.mark.slow


class Watching:
    """A running `echo-load watch`, which says on standard error what it sees.

    Args:
        *arguments: its targets and options.
        timeout: the time that a server has to reply. What does not wait for it is not to be an
            outage because the machine is busy.
        prefix: the command that runs it.
    """

    def __init__(self, *arguments: str, timeout: str = "10s", prefix: Sequence[str] = ()) -> None:
        self.process = subprocess.Popen(
            [*prefix, *LOAD, "watch", *arguments, "--timeout", timeout, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.wait_for("watching")

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line.decode())

    def wait_for(self, text: str) -> None:
        until(lambda: any(text in line for line in self.said), text)

    def figure(self, name: str) -> float:
        """A figure of a watch that serves metrics to Prometheus."""
        (url,) = (line.split()[1] for line in self.said if line.startswith("metrics "))
        with urllib.request.urlopen(url, timeout=DEADLINE) as response:
            return sum_of_metric(response.read().decode(), f"echo_load_{name}", {})

    def stop(self) -> tuple[int, WatchResult]:
        self.process.send_signal(signal.SIGINT)
        assert self.process.stdout is not None
        result = msgspec.json.decode(self.process.stdout.read(), type=Result)
        code = self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        self.process.stdout.close()
        assert self.process.stderr is not None
        self.process.stderr.close()
        assert result.watch is not None
        assert result.exit_code == code
        return code, result.watch


def test_a_server_that_is_killed_and_started_again_refused(start_server: StartServer) -> None:
    server = start_server()
    watching = Watching(server.url)
    server.process.kill()
    server.wait()
    watching.wait_for("outage of")
    start_server("--port", str(server.port))
    watching.wait_for("end of the outage")
    code, found = watching.stop()
    (outage,) = found.outages
    assert (code, outage.kind, outage.target) == (0, "refused", server.url)
    assert (outage.connections, outage.partial, outage.ongoing) == (10, False, False)
    assert found.reconnects == 10
    assert found.longest_seconds == outage.seconds == found.outage_seconds
    assert 0 < found.availability < 1


@pytest.mark.parametrize("scheme", ["tls", "udp", "unix"])
def test_outages_over_other_transports(
    start_server: StartServer, tmp_path: Path, scheme: str
) -> None:
    certificates = make_certificates(tmp_path)
    tls = certificates.options if scheme == "tls" else ()
    trust = ("--tls-ca", str(certificates.authority)) if scheme == "tls" else ()
    listen = f"unix://{tmp_path}/echo" if scheme == "unix" else f"{scheme}://127.0.0.1:0"
    server = start_server("--listen", listen, *tls)
    watching = Watching(server.url, *trust)
    server.process.kill()
    server.wait()
    watching.wait_for("outage of")
    start_server("--listen", server.url, *tls)
    watching.wait_for("end of the outage")
    code, found = watching.stop()
    (outage,) = found.outages
    assert (code, outage.kind, outage.target) == (0, "refused", server.url)
    assert (outage.partial, outage.ongoing) == (False, False)
    assert outage.connections > 0


def established(port: int) -> list[str]:
    """The connections of this machine that are established to a port."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [line[1] for line in lines if line[2].endswith(f":{port:04X}") and line[3] == "01"]


class Switched:
    """Echo, but answer in another way as long as it is told to; a behaviour.

    Attributes:
        is_faulty: set while answers are of the other kind.
        faults: number of such answers.
        echoes: number of the others.
    """

    def __init__(self, fault: Callable[[socket.socket, bytes], object], *, every: int = 1) -> None:
        self.is_faulty = threading.Event()
        self.faults = self.echoes = 0
        self._fault = fault
        self._every = every
        self._numbers = itertools.count()

    def __call__(self, connection: socket.socket, _over: threading.Event) -> None:
        number = next(self._numbers)
        while data := connection.recv(65536):
            if self.is_faulty.is_set() and number % self._every == 0:
                self.faults += 1
                self._fault(connection, data)
            else:
                self.echoes += 1
                connection.sendall(data)


def _flips(connection: socket.socket, data: bytes) -> None:
    connection.sendall(bytes(byte ^ 1 for byte in data))


def _halves(connection: socket.socket, data: bytes) -> None:
    connection.sendall(data[: len(data) // 2])
    connection.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("fault", "kind", "error"),
    [
        (_flips, "wrong", "corrupt"),
        (lambda connection, _: reset(connection), "reset", "reset"),
        (_halves, "closed", "closed"),
        (lambda connection, data: connection.sendall(data[:1]), "silent", "timeout"),
    ],
)
def test_answers_that_are_no_echo_are_outages(
    fault: Callable[[socket.socket, bytes], object], kind: str, error: str
) -> None:
    behaviour = Switched(fault)
    with Service(behaviour) as service:
        watching = Watching(service.target, timeout="2s")
        behaviour.is_faulty.set()
        watching.wait_for("outage of")
        behaviour.is_faulty.clear()
        watching.wait_for("end of the outage")
        _, found = watching.stop()
    (outage,) = found.outages
    assert (outage.kind, outage.ongoing) == (kind, False)
    assert set(outage.errors) == {error}
    assert outage.connections > 0


def test_an_outage_of_some_connections_is_partial() -> None:
    behaviour = Switched(_flips, every=3)
    with Service(behaviour) as service:
        watching = Watching(service.target)
        until(lambda: len(established(service.port)) >= 10, "connections")
        behaviour.is_faulty.set()
        until(lambda: behaviour.faults > 0, "a fault")
        echoes = behaviour.echoes
        until(lambda: behaviour.echoes >= echoes + 20, "others to be answered")
        faults = behaviour.faults
        until(lambda: behaviour.faults >= faults + 10, "more faults")
        behaviour.is_faulty.clear()
        watching.wait_for("end of the outage")
        _, found = watching.stop()
    assert {outage.kind for outage in found.outages} == {"wrong"}
    assert any(outage.partial for outage in found.outages)


def test_outages_are_served_to_prometheus(start_server: StartServer) -> None:
    server = start_server()
    watching = Watching(server.url, "--prometheus", "0")
    (url,) = (line.split()[1] for line in watching.said if line.startswith("metrics "))

    def page() -> str:
        with urllib.request.urlopen(url, timeout=DEADLINE) as response:
            text: str = response.read().decode()
            return text

    labels = f'{{target="{server.url}"}}'
    until(lambda: f"echo_load_target_up{labels} 1.0" in page(), "the target to be up")
    server.process.kill()
    until(lambda: f"echo_load_target_up{labels} 0.0" in page(), "the target to be down")
    assert f"echo_load_outages_total{labels} 1.0" in page()
    assert "\necho_load_paused_seconds_total " in page()
    watching.stop()


def test_a_server_that_is_stopped_is_silent(start_server: StartServer) -> None:
    server = start_server()
    watching = Watching(server.url, timeout="2s")
    with server.paused():
        watching.wait_for("outage of")
    watching.wait_for("end of the outage")
    _, found = watching.stop()
    (outage,) = found.outages
    assert (outage.kind, outage.ongoing) == ("silent", False)
    assert outage.seconds > 2
    assert found.messages_lost > 0


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
    """Echoes, and resets its connections when it is told to."""

    def __init__(self) -> None:
        self.is_over = threading.Event()

    def __call__(self, connection: socket.socket, _over: threading.Event) -> None:
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        while not self.is_over.is_set():
            if poll.poll(20) and (data := connection.recv(65536)):
                connection.sendall(data)
        reset(connection)


def test_losses_while_the_watch_was_stopped_are_disregarded_though_the_target_is_gone() -> None:
    behaviour = EchoesUntilReset()
    with Service(behaviour) as service:
        watching = Watching(service.target, "--prometheus", "0")
        until(lambda: watching.figure("connections_open") >= 10, "connections")
        stop(watching.process.pid)
        stopped = time.monotonic()
        behaviour.is_over.set()
        until(lambda: not established(service.port), "the connections to be reset")
        until(lambda: time.monotonic() > stopped + 0.3, "a pause that the watch notices")
    watching.process.send_signal(signal.SIGCONT)
    watching.wait_for("outage of")
    _, found = watching.stop()
    assert found.disregarded >= 10
    (outage,) = found.outages
    assert (set(outage.errors), outage.kind, outage.ongoing) == ({"refused"}, "refused", True)


def test_a_rolling_restart_is_no_outage(start_server: StartServer) -> None:
    # A probe on a new connection may take that long until the server reads it.
    server = start_server("--workers", "2", "--drain-timeout", "3s")
    old = set(server.workers())
    watching = Watching(*(server.url, "--interval", "100ms", "--prometheus", "0"))
    until(lambda: watching.figure("connections_open") >= 10, "connections")
    server.signal(signal.SIGHUP)
    until(lambda: len(now := set(server.workers())) == 2 and not now & old, "new workers")
    until(lambda: watching.figure("reconnects_total") >= 10, "new connections")
    code, found = watching.stop()
    assert (code, found.outages, found.availability) == (0, [], 1.0)
    # More, if some were opened to a worker that was replaced later.
    assert found.reconnects >= 10


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (silent, "0 of 64 bytes came back within 2s"),
        (wrong, "the reply is not what was sent"),
        (resets, "the server reset the connection"),
    ],
)
def test_a_service_that_does_not_echo_is_refused_in_one_line(
    behaviour: Callable[..., object], reason: str
) -> None:
    with Service(behaviour) as service:
        ended = run([*LOAD, "watch", service.target, "--timeout", "2s"])
    (line,) = ended.stderr.decode().splitlines()
    assert ended.returncode == 1
    assert line.endswith(f"tcp://{service.target} does not echo: {reason}")


def test_an_unreachable_target_is_refused_in_one_line(unused_port: int) -> None:
    ended = run([*LOAD, "watch", f"127.0.0.1:{unused_port}"])
    assert ended.returncode == 1
    (line,) = ended.stderr.decode().splitlines()
    assert "Connection refused" in line


def test_outages_beyond_the_budget_are_exit_code_99(start_server: StartServer) -> None:
    server = start_server()
    watching = Watching(server.url, "--outage-budget", "0s")
    server.process.kill()
    watching.wait_for("outage of")
    code, found = watching.stop()
    assert (code, found.within_budget) == (99, False)
    assert found.outages[-1].ongoing


def test_an_interruption_before_the_duration_is_over_is_one(start_server: StartServer) -> None:
    watching = Watching(start_server().url, "-d", "1h")
    code, found = watching.stop()
    assert (code, found.outages) == (130, [])


def test_a_blocked_path_is_silent(start_server: StartServer) -> None:
    with network_namespace("watched") as name:
        server = start_server(command=(*inside(name), *SERVER))
        watching = Watching(server.url, timeout="2s", prefix=inside(name))
        rule = ("INPUT", "-p", "tcp", "--dport", str(server.port), "-j", "DROP")
        subprocess.run([*inside(name), "iptables", "-A", *rule], check=True)
        watching.wait_for("outage of")
        subprocess.run([*inside(name), "iptables", "-D", *rule], check=True)
        watching.wait_for("end of the outage")
        _, found = watching.stop()
    (outage,) = found.outages
    assert (outage.kind, outage.partial, outage.ongoing) == ("silent", False, False)
    assert outage.connections > 0
