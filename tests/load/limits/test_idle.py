"""`echo-load idle` against servers, proxies and a NAT that drop idle connections."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from echo_load.results.idle import IdleResult
from echo_load.results.result import Result, load_result
from support.certificates import make_certificates
from support.datagram_services import datagram_service
from support.misbehaving import (
    Behaviour,
    Service,
    answers_http,
    greets,
    silent_after,
    wrong,
)
from support.namespaces import nat_with_idle_timeout
from support.ports import free_port
from support.processes import (
    DEADLINE,
    LOAD,
    SERVER,
    StartServer,
    accepts,
    environment,
    loaded,
    program,
    reset,
    run,
    until,
)

pytestmark = pytest.mark.slow


def searched(*arguments: str) -> tuple[int, Result, IdleResult]:
    code, result = loaded("idle", *arguments)
    assert result.command == "idle"
    assert result.exit_code == code
    assert result.idle is not None
    return code, result, result.idle


def all_after(found: IdleResult, seconds: float) -> None:
    """Check what holds for the answer even on a busy machine."""
    assert found.dropped_seconds is not None
    assert 0 < found.kept_seconds < found.dropped_seconds
    # No connection is dropped too soon; the idleness begins with a packet, a little before it is
    # noticed here.
    assert found.dropped_seconds > 0.9 * seconds
    # And none that was idle for much longer is kept, so that the answer is no longer pause.
    longer = [rung for rung in found.rungs if rung.pause_seconds >= 1.8 * seconds]
    assert "kept" not in {rung.outcome for rung in longer}
    shortest = min(longer, key=lambda rung: rung.pause_seconds)
    assert found.dropped_seconds <= max(shortest.pause_seconds, shortest.idle_seconds)


@pytest.mark.parametrize("scheme", ["tcp", "tls", "unix"])
def test_the_idle_timeout_of_a_server(
    start_server: StartServer, tmp_path: Path, scheme: str
) -> None:
    certificates = make_certificates(tmp_path)
    tls = certificates.options if scheme == "tls" else ()
    trust = ("--tls-ca", str(certificates.authority)) if scheme == "tls" else ()
    listen = f"unix://{tmp_path}/echo" if scheme == "unix" else f"{scheme}://127.0.0.1:0"
    server = start_server("--listen", listen, "--idle-timeout", "1s", *tls)
    code, result, found = searched(server.url, "--up-to", "3s", *trust)
    assert code == 0, result.reasons
    all_after(found, 1.0)
    assert found.how == "end_of_stream"
    longest = found.rungs[23]
    assert (longest.pause_seconds, longest.outcome) == (3.0, "end_of_stream")
    assert longest.closed_seconds is not None
    assert 0.9 <= longest.closed_seconds < 3.0
    assert not result.totals.errors


def test_too_short_a_timeout_has_an_exit_code(start_server: StartServer) -> None:
    server = start_server("--idle-timeout", "1500ms")
    code, result, found = searched(server.url, "--up-to", "3s", "--at-least", "2s")
    assert (code, found.is_short) == (99, True)
    (reason,) = result.reasons
    assert reason.startswith("kept>=2s was crossed: dropped after ")
    assert reason.endswith(", by an end of stream")
    assert 2.0 in [rung.pause_seconds for rung in found.rungs]


def test_connections_are_kept(start_server: StartServer) -> None:
    code, result, found = searched(start_server().url, "--up-to", "1s", "--at-least", "700ms")
    assert (code, found.dropped_seconds, found.how) == (0, None, None)
    assert found.kept_seconds >= 1.0
    assert found.answer.startswith("kept up to 1")
    assert [one.passed for one in result.thresholds] == [True]
    assert {rung.outcome for rung in found.rungs} == {"kept"}
    # A first message and a probe each, and those on the connection in use.
    assert result.totals.messages >= 2 * 25
    assert result.totals.connections_opened == 26


def test_the_client_timeout_of_haproxy(start_server: StartServer, tmp_path: Path) -> None:
    haproxy = program("haproxy")
    server = start_server()
    port = free_port()
    file = tmp_path / "haproxy.cfg"
    file.write_text(
        "defaults\n mode tcp\n timeout connect 10s\n timeout client 1s\n timeout server 1m\n"
        f"listen echo\n bind 127.0.0.1:{port}\n server one 127.0.0.1:{server.port}\n"
    )
    process = subprocess.Popen([haproxy, "-db", "-f", str(file)])
    try:
        until(lambda: accepts(port), "haproxy")
        code, result, found = searched(f"127.0.0.1:{port}", "--up-to", "3s")
    finally:
        process.terminate()
        process.wait(DEADLINE)
    assert code == 0, result.reasons
    all_after(found, 1.0)
    assert found.how in {"end_of_stream", "reset"}


def test_a_nat_forgets_in_silence_unless_kept_alive(start_server: StartServer) -> None:
    with nat_with_idle_timeout(seconds=2) as nat:
        server = start_server("--host", nat.address, command=(*nat.server, *SERVER))
        idle = (*nat.client, *LOAD, "idle", server.url, "--up-to", "4s", "--timeout", "2s")
        found = {}
        for options in ((), ("--keepalive", "1s")):
            process = run([*idle, *options, "--json"])
            assert process.returncode == 0, process.stdout
            result = msgspec.json.decode(process.stdout, type=Result)
            found[options] = result.idle
    forgotten, kept = found.values()
    assert forgotten is not None
    all_after(forgotten, 2.0)
    assert forgotten.how == "silence"
    assert {rung.round for rung in forgotten.rungs} >= {1, 2}
    assert all(rung.closed_seconds is None for rung in forgotten.rungs)
    assert kept is not None
    assert kept.kept_seconds >= 4.0
    assert kept.dropped_seconds is None


def test_a_nat_that_forgets_a_mapping_of_datagrams(start_server: StartServer) -> None:
    """The probe gets a new mapping and is answered; a reply after the mapping has ended is lost."""
    with nat_with_idle_timeout(seconds=2) as nat:
        server = (*nat.server, *SERVER)
        listen = ("--listen", f"udp://{nat.address}:0")
        url = start_server(*listen, command=server).url
        process = run([*nat.client, *LOAD, "idle", url, "--up-to", "4s", "--timeout", "1s"])
        assert process.returncode == 0, process.stdout
        assert b"kept up to 4" in process.stdout
        assert b"the probe renews a NAT's mapping" in process.stdout
        lost = {}
        for delay in ("100ms", "4s"):
            url = start_server(*listen, "--fault", f"delay={delay}@100%", command=server).url
            test = ("run", url, "-c", "3", "-n", "3", "--timeout", "6s", "--json")
            process = run([*nat.client, *LOAD, *test])
            result = msgspec.json.decode(process.stdout, type=Result)
            lost[delay] = (result.totals.messages, result.totals.errors)
    assert lost == {"100ms": (3, {}), "4s": (0, {"lost": 3})}


def refuses_after(seconds: float) -> Behaviour:
    """Echo, and reset a connection at the first message after a pause that is too long."""

    def behave(connection: socket.socket, _over: threading.Event) -> None:
        before = time.monotonic()
        while data := connection.recv(65536):
            if time.monotonic() - before > seconds:
                reset(connection)
                return
            before = time.monotonic()
            connection.sendall(data)

    return behave


def test_a_reset_in_answer_to_the_probe() -> None:
    with Service(refuses_after(1.0)) as service:
        code, _, found = searched(service.target, "--up-to", "3s")
    assert code == 0
    all_after(found, 1.0)
    assert found.how == "reset"
    dropped = [rung for rung in found.rungs if rung.outcome == "reset"]
    assert {rung.said for rung in dropped} == {"dropped by a reset, in answer to the probe"}


def forgets_after(seconds: float) -> Callable[[bytes, object], bytes | None]:
    """Echo datagrams, but none of a peer that was silent for too long."""
    seen: dict[object, float] = {}

    def answer(data: bytes, peer: object) -> bytes | None:
        now = time.monotonic()
        if now - seen.get(peer, now) > seconds:
            return None
        seen[peer] = now
        return data

    return answer


def test_datagrams_of_forgotten_peers() -> None:
    with datagram_service(forgets_after(1.0)) as target:
        code, result, found = searched(target, "--up-to", "2s", "--timeout", "1500ms")
    assert code == 0, result.reasons
    all_after(found, 1.0)
    assert found.how == "silence"
    # The burst of losses and the jitter are not measured, and not said to be none.
    assert (result.totals.loss_burst, result.totals.jitter_us) == (None, None)
    assert result.totals.datagrams_sent > result.totals.datagrams_received > 0


def test_over_udp_a_renewed_mapping_is_not_called_kept(start_server: StartServer) -> None:
    server = start_server("--listen", "udp://127.0.0.1:0")
    process = run([*LOAD, "idle", server.url, "--up-to", "500ms"])
    assert process.returncode == 0
    assert b"the probe renews a NAT's mapping" in process.stdout


def test_a_connection_in_use_that_is_lost_as_well_is_no_idle_timeout() -> None:
    with Service(silent_after(3)) as service:
        code, result, found = searched(service.target, "--up-to", "5s", "--timeout", "1500ms")
    assert (code, found.dropped_seconds, found.how) == (1, None, None)
    (reason,) = result.reasons
    assert "a connection with a message every 250 ms was lost, too, after " in reason
    assert reason.endswith("a message got no reply; so idleness was not the reason")


def test_a_target_that_goes_away_is_no_idle_timeout(start_server: StartServer) -> None:
    server = start_server("--admin", "127.0.0.1:0")
    with subprocess.Popen(
        [*LOAD, "idle", server.url, "--up-to", "1h", "--json"],
        stdout=subprocess.PIPE,
        env=environment(),
    ) as process:
        until(lambda: server.metric("connections_accepted_total") >= 25, "connections")
        server.signal(signal.SIGKILL)
        assert process.stdout is not None
        result = msgspec.json.decode(process.stdout.read(), type=Result)
    assert process.returncode == 1
    assert result.idle is not None
    assert result.idle.dropped_seconds is None
    assert "idleness was not the reason" in result.reasons[0]


def test_an_interrupted_search_says_what_is_known(start_server: StartServer) -> None:
    server = start_server("--admin", "127.0.0.1:0")
    with subprocess.Popen(
        [*LOAD, "idle", server.url, "--up-to", "1h", "--at-least", "30m", "--json"],
        stdout=subprocess.PIPE,
        env=environment(),
    ) as process:
        # With the one that is in use. The first may have ended before the last is opened.
        until(lambda: server.metric("connections_accepted_total") == 26, "connections")
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        result = msgspec.json.decode(process.stdout.read(), type=Result)
    assert (process.returncode, result.verdict) == (130, "interrupted")
    assert result.reasons == ["interrupted before the end", "kept>=30m is not known"]
    assert result.idle is not None
    assert len(result.idle.rungs) == 25


@pytest.mark.parametrize(
    ("behaviour", "why"),
    [
        (wrong, "a reply is not what was sent: all 64 bytes differ; received "),
        (greets, "received 220 mail.example.org ESMTP ready"),
        (answers_http, "received HTTP/1.1 400 Bad Request"),
    ],
)
def test_what_does_not_echo_is_refused(behaviour: Behaviour, why: str) -> None:
    with Service(behaviour) as service:
        process = run([*LOAD, "idle", service.target, "--up-to", "1s", "--json"])
    assert (process.returncode, process.stdout) == (1, b"")
    (line,) = process.stderr.decode().splitlines()
    assert f"tcp://{service.target} does not echo: " in line
    assert why in line


def greets_late(connection: socket.socket, over: threading.Event) -> None:
    """Echo the first message, then answer with a greeting."""
    connection.sendall(connection.recv(65536))
    connection.recv(65536)
    greets(connection, over)


def test_a_wrong_reply_during_the_search_is_kept() -> None:
    with Service(greets_late) as service:
        code, result, _ = searched(service.target, "--up-to", "1s")
    assert (code, result.verdict) == (1, "failed")
    (reply,) = result.evidence.wrong_replies
    assert (reply.target, reply.message) == (f"tcp://{service.target}", 1)
    assert reply.received.text.startswith("220 mail.example.org")
    assert reply.received.text in result.reasons[0]


def test_a_target_that_cannot_be_reached(unused_port: int) -> None:
    process = run([*LOAD, "idle", f"127.0.0.1:{unused_port}"])
    assert (process.returncode, process.stdout) == (1, b"")
    expected = f"cannot connect to tcp://127.0.0.1:{unused_port}: Connection refused\n"
    assert process.stderr.decode() == f"echo-load: error: {expected}"


def test_reports_of_a_saved_search(start_server: StartServer, tmp_path: Path) -> None:
    saved, page = tmp_path / "idle.json", tmp_path / "idle.html"
    server = start_server()
    arguments = ("--up-to", "500ms", "-o", str(saved), "--html", str(page))
    first = run([*LOAD, "idle", server.url, *arguments])
    assert first.returncode == 0
    assert run([*LOAD, "report", str(saved)]).stdout == first.stdout
    compared = run([*LOAD, "compare", str(saved), str(saved)])
    assert (compared.returncode, b"whose figures are not those of a load" in compared.stderr) == (
        2,
        True,
    )
    idle = load_result(saved).idle
    assert idle is not None
    assert idle.answer.startswith("kept up to ")
    assert idle.answer.encode() in first.stdout
    assert idle.answer.encode() in page.read_bytes()
    assert b"Over time" not in page.read_bytes().partition(b"<script")[0]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["127.0.0.1:9", "--up-to", "100ms"], "--up-to 100ms is not between 500ms and 168h"),
        (["127.0.0.1:9", "--precision", "1ms"], "--precision 1ms is not between 10ms and --up-to"),
        (["127.0.0.1:9", "--at-least", "11m"], "--at-least 11m is not between 0 and --up-to 10m"),
        (["udp://127.0.0.1:9", "--keepalive", "1s"], "--keepalive needs TCP; udp://127.0.0.1:9"),
        (["127.0.0.1:9", "--keepalive", "1500ms"], "--keepalive: '1500ms' is not in whole seconds"),
        ([], "Missing argument 'TARGET'"),
    ],
)
def test_bad_input(arguments: list[str], expected: str) -> None:
    process = run([*LOAD, "idle", *arguments])
    (line,) = process.stderr.decode().splitlines()
    assert process.returncode == 2
    assert expected in line
