"""`echo-load watch`: outages of servers that are really killed, stopped, rolled and blocked."""

from __future__ import annotations

import itertools
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from support.certificates import make_certificates
from support.misbehaving import Service, answers_http, resets, silent, wrong
from support.namespaces import inside, network_namespace
from support.processes import (
    LOAD,
    SERVER,
    StartServer,
    established,
    reset,
    run,
    until,
)
from support.watching import Watching

pytestmark = pytest.mark.slow

TIME_OF_DAY = r"\d\d:\d\d:\d\d\.\d{3}"


def test_a_server_that_is_killed_and_started_again_refused(start_server: StartServer) -> None:
    server = start_server()
    watching = Watching(server.url)
    server.process.kill()
    server.wait()
    watching.wait_for("outage of")
    start_server("--port", str(server.port))
    watching.wait_for("end of the outage")
    code, result = watching.stop_with_result()
    assert {one.kind for one in result.evidence.failures} == result.totals.errors.keys()
    assert result.watch is not None
    found = result.watch
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
        _, result = watching.stop_with_result()
    assert result.watch is not None
    (outage,) = result.watch.outages
    assert (outage.kind, outage.ongoing) == (kind, False)
    assert set(outage.errors) == {error}
    assert outage.connections > 0
    evidence = result.evidence
    kept = [one.kind for one in evidence.wrong_replies] + [one.kind for one in evidence.failures]
    assert set(kept) == {error}
    for one in evidence.wrong_replies:
        check_what_came(one.sent.data, one.received.data, error)


def check_what_came(sent: bytes, received: bytes, error: str) -> None:
    if error == "corrupt":
        assert received == bytes(byte ^ 1 for byte in sent)
    else:
        # The part that came before the failure.
        assert received
        assert sent.startswith(received)


def _answers_400(connection: socket.socket, _data: bytes) -> None:
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n".ljust(200))


def test_what_came_in_place_of_replies_is_in_every_report(tmp_path: Path) -> None:
    behaviour = Switched(_answers_400)
    saved, junit_file = tmp_path / "watch.json", tmp_path / "junit.xml"
    with Service(behaviour) as service:
        watching = Watching(service.target, "-o", str(saved), "--junit", str(junit_file))
        behaviour.is_faulty.set()
        watching.wait_for("outage of")
        behaviour.is_faulty.clear()
        watching.wait_for("end of the outage")
        _, result = watching.stop_with_result()
    first = result.evidence.wrong_replies[0]
    assert first.received.data.startswith(b"HTTP/1.1 400 Bad Request")
    # A few of the bytes may be the same by chance.
    pairs = zip(first.sent.data, first.received.data, strict=False)
    assert first.offset == next(at for at, (sent, received) in enumerate(pairs) if sent != received)
    assert first.sent.size == 64
    assert first.target == f"tcp://{service.target}"
    screen = run([*LOAD, "report", str(saved)]).stdout.decode()
    assert "first wrong replies" in screen
    assert "HTTP/1.1 400 Bad" in screen
    (case,) = ET.parse(junit_file).findall(".//testcase[skipped]")
    assert case.get("name") == "every reply is identical to what was sent"
    assert "HTTP/1.1 400 Bad" in "".join(case.itertext())


def test_the_error_of_openssl_is_kept(start_server: StartServer, tmp_path: Path) -> None:
    used, other = (make_certificates(tmp_path / name) for name in ("used", "other"))
    server = start_server("--listen", "tls://127.0.0.1:0", *used.options, "--workers", "2")
    watching = Watching(server.url, "--tls-ca", str(used.authority))
    for name in ("cert", "key"):
        getattr(used, name).write_bytes(getattr(other, name).read_bytes())
    server.signal(signal.SIGHUP)
    watching.wait_for(": other")
    _, result = watching.stop_with_result()
    reasons = {one.kind: one.reason for one in result.evidence.failures}
    assert "certificate verify failed" in reasons["handshake"]


def test_each_of_several_targets_has_figures_of_its_own(
    start_server: StartServer, tmp_path: Path
) -> None:
    killed, lasting = start_server(), start_server()
    saved, page = tmp_path / "watch.json", tmp_path / "watch.html"
    watching = Watching(killed.url, lasting.url, "-o", str(saved), "--html", str(page))
    killed.process.kill()
    killed.wait()
    watching.wait_for("outage of")
    watching.stop()
    screen = run([*LOAD, "report", str(saved)]).stdout.decode()
    assert re.search(rf"{killed.url} +\d+\.\d+ % +1 +[\d.]+ m?s", screen)
    assert re.search(rf"{lasting.url} +100 % +0 ", screen)
    (table,) = re.findall(r'id="watched-targets".*?</table>', page.read_text(), re.DOTALL)
    rows = re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td><td.*?>(.*?)</td>', table)
    (_, availability, _), lasting_row = rows
    assert [rows[0][0], rows[0][2]] == [killed.url, "1"]
    assert availability.endswith(" %")
    assert availability != "100 %"
    assert lasting_row == (lasting.url, "100 %", "0")


def test_outages_have_the_time_of_day(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server()
    saved, page = tmp_path / "watch.json", tmp_path / "watch.html"
    watching = Watching(server.url, "-o", str(saved), "--html", str(page))
    before = datetime.now(UTC)
    server.process.kill()
    server.wait()
    watching.wait_for("outage of")
    after = datetime.now(UTC)
    start_server("--port", str(server.port))
    watching.wait_for("end of the outage")
    _, found = watching.stop()
    (outage,) = found.outages
    began = datetime.fromisoformat(outage.started_at)
    # The first probe that failed may have been sent before the kill.
    assert before - timedelta(seconds=1) < began < after
    clock = f"{began:%H:%M:%S}.{began.microsecond // 1000:03}"
    begin, end = (line for line in watching.said if "outage of" in line)
    assert re.match(rf"{TIME_OF_DAY} UTC +\d+\.\d{{3}} s  outage of {server.url}: ", begin)
    assert re.match(rf"{TIME_OF_DAY} UTC +\d+\.\d{{3}} s  end of the outage", end)
    screen = run([*LOAD, "report", str(saved)]).stdout.decode()
    assert re.search(rf" {clock} +{outage.begin:.3f} s", screen)
    assert f">{clock}</time>" in page.read_text()


def test_failures_of_several_targets_are_attributed_to_the_right_one() -> None:
    behaviour = Switched(_flips)
    with Service(Switched(_flips)) as right, Service(behaviour) as faulty:
        watching = Watching(right.target, faulty.target, "-c", "3")
        behaviour.is_faulty.set()
        until(lambda: behaviour.faults >= 20, "faults")
        _, result = watching.stop_with_result()
    wrong_replies = result.evidence.wrong_replies
    assert wrong_replies
    assert {one.target for one in wrong_replies} == {f"tcp://{faulty.target}"}


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
    labels = f'{{target="{server.url}"}}'
    until(lambda: f"echo_load_target_up{labels} 1.0" in watching.metrics(), "the target to be up")
    server.process.kill()
    until(lambda: f"echo_load_target_up{labels} 0.0" in watching.metrics(), "the target to be down")
    assert f"echo_load_outages_total{labels} 1.0" in watching.metrics()
    assert "\necho_load_paused_seconds_total " in watching.metrics()
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
        (wrong, "the reply is not what was sent: all 64 bytes differ; received "),
        (answers_http, "; received HTTP/1.1 400 Bad Request"),
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
    assert f"tcp://{service.target} does not echo: " in line
    assert reason in line


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


def test_a_name_that_comes_to_stand_for_another_address_is_followed(
    start_server: StartServer,
) -> None:
    with network_namespace("named") as name:
        # `ip netns exec` mounts this file at /etc/hosts.
        hosts = Path("/etc/netns", name, "hosts")
        hosts.parent.mkdir(parents=True)
        try:
            hosts.write_text("127.0.0.2 service.example\n")
            command = (*inside(name), *SERVER)
            first = start_server("--listen", "tcp://127.0.0.2:0", command=command)
            start_server("--listen", f"tcp://127.0.0.3:{first.port}", command=command)
            watching = Watching(f"service.example:{first.port}", prefix=inside(name))
            first.process.kill()
            first.wait()
            watching.wait_for("outage of")
            hosts.write_text("127.0.0.3 service.example\n")
            watching.wait_for("end of the outage")
            hosts.write_text("")
            watching.wait_for(": other")
            _, result = watching.stop_with_result()
        finally:
            hosts.unlink(missing_ok=True)
            hosts.parent.rmdir()
    assert result.watch is not None
    moved, gone, *_ = result.watch.outages
    assert (moved.kind, moved.ongoing) == ("refused", False)
    assert (gone.kind, gone.connections) == ("other", 0)
    assert set(gone.errors) == {"unresolved"}
    assert any(one.kind == "unresolved" for one in result.evidence.failures)
