"""The ping: `echo-client -n`, against real servers, with faults, and services that misbehave."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pexpect
import pytest

from support.certificates import make_certificates
from support.misbehaving import (
    Service,
    closes_at_once,
    doubled,
    halves,
    in_pieces,
    late,
    resets_midway,
    silent,
    wrong,
)
from support.processes import CLIENT, DEADLINE, EchoServerProcess, StartServer, environment, run

TIME = r"\d+ µs|\d+\.?\d* m?s"


def ping(*arguments: str) -> tuple[int, list[str]]:
    """Run a ping to its end; return its exit code and its lines. It must report no error."""
    interval = [] if "-i" in arguments else ["-i", "5ms"]
    result = run([*CLIENT, *interval, *arguments])
    assert result.stderr == b""
    return result.returncode, result.stdout.decode().splitlines()


def lines_with(text: str, lines: Sequence[str]) -> list[str]:
    return [line for line in lines if text in line]


def until_line(text: str, lines: Iterable[str]) -> None:
    """Read lines up to the first that contains a text."""
    assert any(text in line for line in lines), f"no line has {text!r}"


def counts(lines: Sequence[str]) -> str:
    """Return the counts of the summary, without the elapsed time."""
    (at,) = (number for number, line in enumerate(lines) if line.startswith("--- "))
    return lines[at + 1].rpartition(";")[0]


@pytest.fixture
def options(tmp_path: Path) -> dict[str, tuple[list[str], list[str]]]:
    """The options of a server and of a client by transport."""
    certificates = make_certificates(tmp_path / "certificates")
    authority = ["--tls-ca", str(certificates.authority)]
    return {
        "tcp": (["--listen", "tcp://127.0.0.1:0"], []),
        "udp": (["--listen", "udp://127.0.0.1:0"], []),
        "unix": (["--listen", f"unix://{tmp_path}/echo.sock"], []),
        "tls": (["--listen", "tls://127.0.0.1:0", *certificates.options], authority),
    }


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["tcp", "tls", "udp", "unix"])
def test_every_transport(
    start_server: StartServer, options: dict[str, tuple[list[str], list[str]]], transport: str
) -> None:
    of_server, of_client = options[transport]
    server = start_server(*of_server)
    code, lines = ping("-n", "4", server.url, *of_client)
    assert code == 0
    first, *replies, head, summary, figures = lines
    assert first.startswith("sending to" if transport == "udp" else "connected to")
    assert server.url in first
    assert ("TLS handshake" in first) == (transport == "tls")
    assert len(replies) == 4
    for number, line in enumerate(replies, 1):
        location = server.url.partition("://")[2]
        assert re.fullmatch(
            rf"64 bytes from {re.escape(location)}: seq={number} time=({TIME})", line
        )
    assert head == f"--- {server.url} ---"
    assert re.fullmatch(rf"4 messages: 4 received, 0 lost; ({TIME})", summary)
    names = re.findall(rf"(\w+) (?:{TIME})", figures)
    assert names == ["min", "p50", "p90", "p99", "max", "jitter"]


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["tcp", "tls", "udp", "unix"])
@pytest.mark.parametrize("size", ["16", "65507"])
def test_sizes(
    start_server: StartServer,
    options: dict[str, tuple[list[str], list[str]]],
    transport: str,
    size: str,
) -> None:
    of_server, of_client = options[transport]
    server = start_server(*of_server)
    code, lines = ping("-i", "1ms", "-n", "30", "--payload-size", size, server.url, *of_client)
    assert (code, counts(lines)) == (0, "30 messages: 30 received, 0 lost")


def test_a_single_message_has_no_jitter(echo_server: EchoServerProcess) -> None:
    code, lines = ping("-n", "1", echo_server.url)
    assert (code, counts(lines)) == (0, "1 message: 1 received, 0 lost")
    assert "jitter" not in lines[-1]


def test_replies_in_pieces_are_put_together() -> None:
    with Service(in_pieces) as service:
        code, lines = ping("-n", "5", service.target)
    assert (code, counts(lines)) == (0, "5 messages: 5 received, 0 lost")


def test_the_next_message_does_not_wait_for_a_reply() -> None:
    """All messages are sent before the first reply."""
    arrived = threading.Event()

    def waits_for_all(connection: socket.socket, _over: threading.Event) -> None:
        received = b""
        while len(received) < 5 * 64:
            received += connection.recv(65536)
        arrived.set()
        connection.sendall(received)

    with Service(waits_for_all) as service:
        code, lines = ping("-n", "5", service.target)
        assert arrived.is_set()
    assert (code, counts(lines)) == (0, "5 messages: 5 received, 0 lost")


@pytest.mark.parametrize("target", ["tcp", "udp"])
def test_corruption_is_located(start_server: StartServer, target: str) -> None:
    server = start_server("--listen", f"{target}://127.0.0.1:0", "--fault", "corrupt@30%")
    code, lines = ping("-n", "6", server.url)
    assert code == 1
    assert counts(lines) == "6 messages: 4 received, 0 lost, 2 wrong"
    found = re.findall(
        r"seq=(\d) time=.* wrong: .* from offset (\d+) on, in 1 of 64 bytes", "\n".join(lines)
    )
    assert len(found) == 2
    assert len(lines_with("  sent      ", lines)) == len(lines_with("  received  ", lines)) == 2


@pytest.mark.slow
def test_everything_wrong_is_out_of_step_and_connected_again() -> None:
    with Service(wrong) as service:
        code, lines = ping("-i", "1s", "-n", "4", service.target)
    assert code == 1
    assert counts(lines) == "4 messages: 0 received, 0 lost, 4 wrong, 2 connections lost"
    assert len(lines_with("connected to", lines)) == 2


@pytest.mark.slow
def test_surplus_bytes_are_noticed() -> None:
    with Service(doubled) as service:
        code, lines = ping("-i", "1s", "-n", "2", service.target)
    assert code == 1
    assert counts(lines) == "2 messages: 2 received, 0 lost, 2 surplus, 2 connections lost"
    assert len(lines_with("64 bytes from", lines)) == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("drop@30%", "6 messages: 4 received, 2 lost (33.3 %)"),
        ("duplicate@30%", "6 messages: 6 received, 0 lost, 2 duplicates"),
        ("truncate@30%", "6 messages: 4 received, 0 lost, 2 wrong"),
    ],
)
def test_datagrams_with_faults(start_server: StartServer, fault: str, expected: str) -> None:
    server = start_server("--listen", "udp://127.0.0.1:0", "--fault", fault)
    code, lines = ping("-n", "6", "--timeout", "2s", server.url)
    assert (code, counts(lines)) == (1, expected)
    assert len(lines_with("no reply within 2s", lines)) == 2 * (fault == "drop@30%")


def test_reordered_datagrams_are_well(start_server: StartServer) -> None:
    server = start_server("--listen", "udp://127.0.0.1:0", "--fault", "reorder@30%")
    code, lines = ping("-n", "6", server.url)
    assert (code, counts(lines)) == (0, "6 messages: 6 received, 0 lost")


@pytest.mark.slow
def test_a_late_datagram_stays_lost() -> None:
    """The reply to the first message comes with that to the second, after the timeout."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service:
        service.bind(("127.0.0.1", 0))
        service.settimeout(DEADLINE)

        def serve() -> None:
            first, address = service.recvfrom(65536)
            second, _ = service.recvfrom(65536)
            service.sendto(first, address)
            service.sendto(b"no", address)
            service.sendto(second, address)

        serving = threading.Thread(target=serve)
        serving.start()
        url = f"udp://127.0.0.1:{service.getsockname()[1]}"
        code, lines = ping("-i", "2200ms", "-n", "2", "--timeout", "2s", url)
        serving.join(DEADLINE)
    assert code == 1
    assert counts(lines) == "2 messages: 1 received, 1 lost (50 %), 1 late, 1 surplus"
    assert len(lines_with("seq=1 lost: no reply within 2s", lines)) == 1
    assert len(lines_with("late, counted as lost", lines)) == 1
    assert len(lines_with("2 bytes from", lines)) == 1


@pytest.mark.slow
def test_an_overdue_reply_costs_the_stream() -> None:
    with Service(silent) as service:
        code, lines = ping("-n", "2", "--timeout", "2s", service.target)
    assert code == 1
    assert counts(lines) == "2 messages: 0 received, 2 lost (100 %), 1 connection lost"
    assert lines[1:4] == [
        "seq=1 lost: no reply within 2s",
        "seq=2 lost: given up, since no reply can overtake that to message 1",
        "connection lost: no reply within 2s",
    ]


def test_a_slow_service_is_not_lost() -> None:
    with Service(late(0.1)) as service:
        code, lines = ping("-n", "1", service.target)
    assert (code, counts(lines)) == (0, "1 message: 1 received, 0 lost")
    assert re.search(r"seq=1 time=1\d\d ms|seq=1 time=.* s", lines[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (halves, "the server closed the connection after 32 of 64 bytes"),
        (closes_at_once, "the server (closed|reset) the connection"),
    ],
)
def test_a_lost_connection_is_opened_again(behaviour: Callable[..., None], said: str) -> None:
    with Service(behaviour) as service:
        code, lines = ping("-i", "1s", "-n", "3", service.target)
    assert code == 1
    assert counts(lines) == "3 messages: 0 received, 3 lost (100 %), 3 connections lost"
    assert len([line for line in lines if re.fullmatch(f"seq=\\d lost: {said}", line)]) == 3
    assert len(lines_with("connected to", lines)) == 3


@pytest.mark.slow
def test_a_reset_costs_one_message() -> None:
    with Service(resets_midway) as service:
        code, lines = ping("-i", "1s", "-n", "5", service.target)
    assert code == 1
    assert counts(lines) == "5 messages: 4 received, 1 lost (20 %), 1 connection lost"
    assert len(lines_with("seq=4 lost: the server reset the connection", lines)) == 1


def test_a_connection_that_is_lost_between_messages_is_a_failure() -> None:
    """No message is lost."""

    def echoes_once(connection: socket.socket, _over: threading.Event) -> None:
        connection.sendall(connection.recv(65536))

    with Service(echoes_once) as service:
        code, lines = ping("-i", "1s", "-n", "2", service.target)
    assert code == 1
    assert counts(lines).startswith("2 messages: 2 received, 0 lost, ")
    assert len(lines_with("connected to", lines)) == 2


@pytest.mark.slow
def test_a_server_that_is_killed_and_started_again(
    echo_server: EchoServerProcess, start_server: StartServer
) -> None:
    port = str(echo_server.port)
    with subprocess.Popen(
        [*CLIENT, "-n", "10k", "-i", "20ms", f"127.0.0.1:{port}"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as client:
        assert client.stdout is not None
        lines = iter(client.stdout)
        until_line("seq=1 time=", lines)
        echo_server.signal(signal.SIGKILL)
        echo_server.wait()
        until_line("connection lost: ", lines)
        until_line("lost: cannot connect to", lines)
        start_server("--port", port)
        until_line("connected to", lines)
        until_line("time=", lines)
        client.send_signal(signal.SIGINT)
        rest = list(lines)
        assert client.wait(DEADLINE) == 130
    assert re.search(r"lost \(.* %\).*1 connection lost", "".join(rest))


def test_ctrl_c_prints_the_summary() -> None:
    with (
        Service(silent) as service,
        subprocess.Popen(
            [*CLIENT, "-n", "100", "-i", "20ms", service.target],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        ) as client,
    ):
        assert client.stdout is not None
        until_line("connected to", client.stdout)
        client.send_signal(signal.SIGINT)
        output, errors = client.communicate(timeout=DEADLINE)
    assert (client.returncode, errors) == (130, "")
    assert re.search(r"messages?: 0 received, 0 lost(, \d+ in flight)?; ", output)


def test_a_port_without_a_listener(unused_port: int) -> None:
    code, lines = ping("-n", "2", f"127.0.0.1:{unused_port}")
    reason = f"cannot connect to tcp://127.0.0.1:{unused_port}: Connection refused"
    assert code == 1
    assert lines[:2] == [f"seq=1 lost: {reason}", f"seq=2 lost: {reason}"]
    assert counts(lines) == "2 messages: 0 received, 2 lost (100 %)"
    code, lines = ping("-n", "2", f"udp://127.0.0.1:{unused_port}")
    assert code == 1
    assert len(lines_with("lost: nothing listens there", lines)) == 2


def test_an_unknown_name_is_one_line() -> None:
    result = run([*CLIENT, "-n", "2", "nowhere.invalid"])
    assert (result.returncode, result.stdout) == (1, b"")
    (line,) = result.stderr.decode().splitlines()
    assert line.startswith("echo-client: error: cannot connect to tcp://nowhere.invalid")


def test_standard_input_is_left_alone(echo_server: EchoServerProcess) -> None:
    """A loop such as `while read host; do echo-client -n 3 $host; done < hosts` relies on it."""
    result = subprocess.run(
        ["sh", "-c", '"$@"; cat', "sh", *CLIENT, "-n", "1", echo_server.url],
        input=b"the next host",
        capture_output=True,
        timeout=DEADLINE,
        check=True,
        env=environment(),
    )
    assert result.stdout.endswith(b"the next host")


def test_a_pipe_typed_at_a_terminal_is_refused(echo_server: EchoServerProcess) -> None:
    command = f"echo hi | {sys.executable} -m echo_client -n 1 {echo_server.url}"
    child = pexpect.spawn(
        "sh", ["-c", command], env=environment(), encoding="utf-8", timeout=DEADLINE
    )
    child.expect("echo-client: error: -n sends messages of its own, not standard input")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 2
