"""The prompt, driven through a pseudo-terminal as a person would."""

from __future__ import annotations

import os
import pwd
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest
from prompt_toolkit.history import InMemoryHistory

from echo_client.repl import _history
from support.certificates import make_certificates
from support.misbehaving import (
    Service,
    doubled,
    in_pieces,
    resets,
    resets_midway,
    silent,
    wrong,
)
from support.processes import CLIENT, DEADLINE, EchoServerProcess, environment

Prompt = Callable[..., "Terminal"]


class Terminal:
    """An `echo-client` on a pseudo-terminal."""

    def __init__(self, arguments: list[str], state: Path) -> None:
        self.child = pexpect.spawn(
            CLIENT[0],
            [*CLIENT[1:], *arguments],
            env=environment(XDG_STATE_HOME=str(state), TERM="xterm", PROMPT_TOOLKIT_NO_CPR="1"),
            encoding="utf-8",
            timeout=DEADLINE,
            dimensions=(50, 150),
        )
        self.seen = ""

    def expect(self, pattern: str) -> str:
        self.child.expect(pattern)
        assert isinstance(self.child.after, str)
        self.seen += f"{self.child.before}{self.child.after}"
        return self.child.after

    def type(self, line: str) -> None:
        """Type a line at the prompt; what is expected next comes after it."""
        self.expect(":[0-9]+( \\(not connected\\))?>")
        self.child.send(line + "\r")
        # The terminal's bracketed paste mode is on while a line is edited.
        self.expect(re.escape("\x1b[?2004l"))

    def expect_reply(self, reply: str) -> None:
        # Whatever stands between is how the terminal is told to write the aside grey.
        self.expect(re.escape(reply) + r"[^ ]*  (\d+ µs|\d+\.?\d* m?s)")

    def ends(self) -> int | None:
        self.child.expect(pexpect.EOF)
        self.seen += str(self.child.before)
        self.child.close()
        status = self.child.exitstatus
        assert status is None or isinstance(status, int)
        return status


@pytest.fixture
def prompt(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    terminals: list[Terminal] = []

    def start(*arguments: str) -> Terminal:
        terminals.append(Terminal(list(arguments), tmp_path / "state"))
        return terminals[-1]

    yield start
    for terminal in terminals:
        terminal.child.close(force=True)


@pytest.fixture
def terminal(echo_server: EchoServerProcess, prompt: Prompt) -> Terminal:
    return prompt(f"127.0.0.1:{echo_server.port}")


@pytest.mark.slow
def test_a_line_its_reply_and_its_round_trip(terminal: Terminal) -> None:
    terminal.expect("connected to tcp://127.0.0.1:")
    terminal.type("hello there")
    terminal.expect_reply("hello there")
    terminal.type("\\quit")
    assert terminal.ends() == 0


def test_characters_split_across_receives_are_echoed_whole(prompt: Prompt) -> None:
    with Service(in_pieces) as service:
        terminal = prompt(service.target)
        terminal.type("你好,世界" * 5)
        terminal.expect_reply("你好,世界" * 5)
        terminal.type("\\quit")
        assert terminal.ends() == 0


@pytest.mark.slow
def test_a_reply_longer_than_one_receive(terminal: Terminal) -> None:
    terminal.type("\\repeat 3 " + "长" * 10_000)
    terminal.expect("3 sent, 3 came back unchanged")


@pytest.mark.slow
def test_commands(terminal: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "a file"
    file.write_bytes(os.urandom(3 << 20))
    terminal.type("\\hex e4bda0 ff")
    terminal.expect_reply("e4 bd a0 ff")
    terminal.type("\\hex quatsch")
    terminal.expect("'quatsch' is not hexadecimal")
    terminal.type(f"\\send {file}")
    terminal.expect("3.0 MiB sent and echoed unchanged")
    terminal.type("\\send /nonexistent")
    terminal.expect("/nonexistent: No such file or directory")
    terminal.type("\\repeat 100 ping")
    terminal.expect("100 sent, 100 came back unchanged")
    terminal.type("\\repeat often ping")
    terminal.expect("'often' is not a count")
    terminal.type("\\stats")
    terminal.expect("101 messages, 404 B each way, 0 mismatches, 0 without a reply")
    for name in ("min", "p50", "p90", "p99", "max"):
        terminal.expect(f"{name} ")
    terminal.type("\\nonsense")
    terminal.expect("nonsense is not a command")
    terminal.type("\\\\literally")
    terminal.expect_reply("\\literally")
    terminal.type("\\help")
    for command in (
        "help",
        "hex BYTES",
        "send FILE",
        "repeat N TEXT",
        "stats",
        "reconnect",
        "quit",
    ):
        terminal.expect(re.escape(f"\\{command}"))


@pytest.mark.slow
def test_tls(
    start_server: Callable[..., EchoServerProcess], prompt: Prompt, tmp_path: Path
) -> None:
    certificates = make_certificates(tmp_path / "certificates")
    server = start_server("--listen", "tls://127.0.0.1:0", *certificates.options)
    terminal = prompt(server.url, "--tls-ca", str(certificates.authority))
    terminal.expect("connected to tls://127.0.0.1:")
    terminal.type("你好")
    terminal.expect_reply("你好")
    file = tmp_path / "file"
    file.write_bytes(os.urandom(3 << 20))
    terminal.type(f"\\send {file}")
    terminal.expect("3.0 MiB sent and echoed unchanged")
    terminal.type("\\quit")
    assert terminal.ends() == 0


@pytest.mark.slow
def test_untrusted_certificates_and_failed_handshakes(
    start_server: Callable[..., EchoServerProcess], prompt: Prompt, tmp_path: Path
) -> None:
    certificates = make_certificates(tmp_path / "certificates")
    server = start_server("--listen", "tls://127.0.0.1:0", *certificates.options)
    terminal = prompt(server.url)
    terminal.expect("certificate verify failed")
    terminal.type("\\quit")
    assert terminal.ends() == 0
    terminal = prompt(server.url, "--tls-ca", "/nonexistent")
    terminal.expect("--tls-ca: /nonexistent: No such file or directory")
    assert terminal.ends() == 2


@pytest.mark.slow
def test_udp(start_server: Callable[..., EchoServerProcess], prompt: Prompt) -> None:
    server = start_server("--listen", "udp://127.0.0.1:0")
    terminal = prompt(server.url)
    terminal.expect("sending to udp://127.0.0.1:")
    terminal.type("hello")
    terminal.expect_reply("hello")
    terminal.type("\\send /etc/passwd")
    terminal.expect("datagrams may be lost or reordered")
    terminal.type("\\repeat 10 ping")
    terminal.expect("10 sent, 10 came back unchanged")
    server.signal(signal.SIGKILL)
    server.wait()
    terminal.type("and now?")
    terminal.expect("nothing listens there: .*; the next message connects again")
    start_server("--listen", server.url)
    terminal.type("welcome back")
    terminal.expect("sending to udp://127.0.0.1:")
    terminal.expect_reply("welcome back")


def test_ctrl_d_ends(terminal: Terminal) -> None:
    terminal.expect(">")
    terminal.child.sendeof()
    assert terminal.ends() == 0


def test_ctrl_c_discards_the_line_but_does_not_quit(terminal: Terminal) -> None:
    terminal.expect(">")
    terminal.child.send("half a li")
    terminal.child.sendintr()
    terminal.type("a whole one")
    terminal.expect_reply("a whole one")


def test_ctrl_c_while_waiting_for_a_reply(prompt: Prompt) -> None:
    asked = threading.Event()

    def ignore(connection: socket.socket, over: threading.Event) -> None:
        connection.recv(100)
        asked.set()
        over.wait(DEADLINE)

    with Service(ignore) as service:
        terminal = prompt(service.target)
        terminal.type("anybody?")
        assert asked.wait(DEADLINE)
        terminal.child.sendintr()
        terminal.expect("interrupted, connection closed")
        terminal.expect("the next message connects again")
        terminal.type("\\reconnect")
        terminal.expect("connected to")


def test_a_lost_connection_is_opened_again(
    echo_server: EchoServerProcess, prompt: Prompt, start_server: Callable[..., EchoServerProcess]
) -> None:
    """A restart between two messages is reported, and costs none of them."""
    terminal = prompt(f"127.0.0.1:{echo_server.port}")
    terminal.type("still there?")
    terminal.expect("µs|ms")
    echo_server.signal(signal.SIGKILL)
    echo_server.wait()
    terminal.type("and now?")
    terminal.expect(r"the server (closed|reset) the connection.*; connecting again")
    terminal.expect("Connection refused; the next message connects again")
    terminal.expect(r"\(not connected\)>")
    terminal.child.send("hello?\r")
    terminal.expect("Connection refused")
    start_server("--port", str(echo_server.port))
    terminal.type("welcome back")
    terminal.expect("connected to")
    terminal.expect_reply("welcome back")
    terminal.type("\\stats")
    terminal.expect("2 messages, 24 B each way, 0 mismatches, 0 without a reply")


def test_a_connection_that_breaks_during_a_message(prompt: Prompt) -> None:
    with Service(resets) as service:
        terminal = prompt(service.target)
        terminal.type("hello")
        terminal.expect("the server reset the connection; the next message connects again")
        terminal.type("\\stats")
        terminal.expect("0 messages, 0 B each way, 0 mismatches, 1 without a reply")


def test_a_service_that_is_silent_or_wrong(prompt: Prompt) -> None:
    with Service(silent) as service:
        terminal = prompt(service.target, "--timeout", "100ms")
        terminal.type("hello")
        terminal.expect("0 of 5 bytes came back within 100ms")
    with Service(wrong) as service:
        terminal = prompt(service.target)
        terminal.type("hello")
        terminal.expect("idmmn")
        terminal.expect("the reply differs from offset 0 on, in 5 of 5 bytes")
        terminal.expect(r"sent      68 65 6c 6c 6f   \|hello\|")
        terminal.expect(r"received  69 64 6d 6d 6e   \|idmmn\|")
        terminal.type("\\repeat 3 hello")
        terminal.expect("3 sent, 0 came back unchanged")
        terminal.expect("message 1 is the first with a wrong reply:")
        terminal.expect("the reply differs from offset 0 on")
        terminal.type("\\stats")
        terminal.expect("4 messages, 20 B each way, 4 mismatches")


def test_surplus_bytes_are_out_of_step(prompt: Prompt) -> None:
    with Service(doubled) as service:
        terminal = prompt(service.target)
        terminal.type("hello")
        # They arrive with the reply, or are found before the next message.
        terminal.expect("hello")
        terminal.type("and now?")
        terminal.expect("connected to")
        terminal.type("\\quit")
        assert terminal.ends() == 0
        assert "out of step" in terminal.seen or "5 bytes arrived that were not" in terminal.seen


@pytest.mark.slow
def test_a_repetition_shows_progress_and_after_ctrl_c_its_figures(terminal: Terminal) -> None:
    terminal.type("\\repeat 1M ping")
    terminal.expect(r"[\d,]+ of 1,000,000 \(\d+ %\)")
    terminal.child.sendintr()
    figures = terminal.expect(
        r"[\d,]+ of 1,000,000 sent, [\d,]+ came back unchanged.*max [^ ]+ .?s"
    )
    counts = re.search(r"([\d,]+) of 1,000,000 sent, ([\d,]+) came", figures)
    assert counts is not None
    sent, unchanged = (int(number.replace(",", "")) for number in counts.groups())
    assert 0 <= sent - unchanged <= 1
    assert sent > 1
    for name in ("min", "p50", "p90", "p99"):
        assert f"{name} " in figures
    terminal.expect("interrupted, connection closed; the next message connects again")
    terminal.type("again")
    terminal.expect("connected to")
    terminal.expect_reply("again")


def test_a_repetition_that_fails_shows_its_figures(prompt: Prompt) -> None:
    with Service(resets_midway) as service:
        terminal = prompt(service.target)
        terminal.type("\\repeat 10 hello")
        terminal.expect("4 of 10 sent, 3 came back unchanged")
        terminal.expect("the server reset the connection; the next message connects again")
        terminal.type("\\repeat 0 hello")
        terminal.expect("with N from 1")


@pytest.mark.slow
def test_commands_and_file_names_are_completed(terminal: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "a file with a long name"
    file.write_bytes(b"content")
    terminal.expect(">")
    # Typing on would cancel a completion, so each is waited for.
    terminal.child.send("\\se\t")
    terminal.expect("nd")
    terminal.child.send(f"{tmp_path}/a fi\t")
    terminal.expect("le with a long name")
    terminal.child.send("\r")
    terminal.expect("7 B sent and echoed unchanged")


def test_no_listener_at_the_start(prompt: Prompt, unused_port: int) -> None:
    terminal = prompt(f"127.0.0.1:{unused_port}")
    terminal.expect("Connection refused; the next message connects again")
    terminal.type("\\quit")
    assert terminal.ends() == 0


def test_lines_are_kept_in_the_history(
    echo_server: EchoServerProcess, prompt: Prompt, tmp_path: Path
) -> None:
    target = f"127.0.0.1:{echo_server.port}"
    first = prompt(target)
    first.type("a line to remember")
    first.expect_reply("a line to remember")
    first.type("\\quit")
    first.ends()
    history = tmp_path / "state" / "echoswarm" / "history"
    assert "a line to remember" in history.read_text()
    assert history.stat().st_mode & 0o077 == 0
    second = prompt(target)
    second.type("\x1b[A\x1b[A")
    second.expect_reply("a line to remember")


def test_an_unwritable_history_does_not_prevent_the_prompt(
    echo_server: EchoServerProcess, prompt: Prompt, tmp_path: Path
) -> None:
    (tmp_path / "state").write_text("a file where the directory should be")
    terminal = prompt(f"127.0.0.1:{echo_server.port}")
    terminal.expect("history is not saved")
    terminal.type("hello")
    terminal.expect_reply("hello")


def test_a_user_without_a_home_directory(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A container may run with a user id that the system does not know."""

    def unknown(_number: int) -> None:
        raise KeyError("no such user")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert isinstance(_history(), InMemoryHistory)
    assert "history is not saved: there is no home directory" in capsys.readouterr().out
