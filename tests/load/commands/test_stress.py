"""`echo-load stress` as users run it, on good and bad services."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pexpect
import psutil
import pytest

from support.misbehaving import (
    Behaviour,
    Service,
    doubled,
    drops_midway,
    late,
    resets_midway,
    silent,
    slow,
    wrong,
)
from support.processes import DEADLINE, LOAD, EchoServerProcess, environment, run, until

STRESS = [*LOAD, "stress"]


def stressed(*arguments: str) -> tuple[int, dict[str, Any]]:
    result = run([*STRESS, *arguments, "--json"])
    assert b"Traceback" not in result.stderr, result.stderr.decode()
    return result.returncode, json.loads(result.stdout)


def descendants() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    before = set(descendants())
    yield
    until(lambda: set(descendants()) <= before, "all processes to have ended")


@pytest.mark.slow
def test_the_default_is_the_two_stages_of_the_tutorial(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    result = run([*STRESS, "-d", "500ms", "-o", str(output)])
    text = result.stdout.decode()
    assert result.returncode == 0, text + result.stderr.decode()
    assert text.index("100 connections") < text.index("1,000 connections") < text.index("PASSED")
    assert "100 opened, 0 failed, 0 lost" in text
    assert "1,000 opened, 0 failed, 0 lost" in text
    assert text.count("0 wrong replies, 0 timeouts") == 2
    for figure in ("p50", "p90", "p99", "p99.9", "max", "msg/s", "B/s (", "bit/s)"):
        assert text.count(figure) >= 2
    assert "cores busy" in text
    assert "sent = received by the server = sent by it" in text
    written = json.loads(output.read_text())
    assert [stage["connections_opened"] for stage in written["stages"]] == [100, 1000]
    assert written["passed"] is True


@pytest.mark.slow
def test_the_figures_agree_with_each_other(echo_server: EchoServerProcess) -> None:
    code, result = stressed(
        echo_server.url, "-c", "10", "-c", "25", "-d", "1200ms", "--processes", "3"
    )
    assert code == 0
    assert result["schema"] == "echoswarm/result/1"
    assert result["command"] == "stress"
    assert result["targets"] == [echo_server.url]
    assert result["generator"]["processes"] == 3
    totals, stages = result["totals"], result["stages"]
    assert [stage["name"] for stage in stages] == ["10 connections", "25 connections"]
    for key in ("messages", "bytes_sent", "bytes_received", "connections_opened"):
        assert totals[key] == sum(stage[key] for stage in stages)
    assert totals["connections_opened"] == 35
    assert totals["bytes_sent"] == totals["bytes_received"] > 7 * totals["messages"]
    assert totals["errors"] == {}
    assert result["latency_us"]["response"]["count"] == totals["messages"]
    assert result["latency_us"]["connect"]["count"] == 35
    assert sum(second["messages"] for second in result["series"]) == totals["messages"]
    for stage in stages:
        response = stage["latency_us"]["response"]
        figures = [response[key] for key in ("p50", "p75", "p90", "p95", "p99", "p99_9", "max")]
        assert figures == sorted(figures)
        assert 0 < response["mean"] <= response["max"]
        assert stage["messages_per_second"] == pytest.approx(stage["messages"] / stage["seconds"])
    until(lambda: echo_server.log().count("connection closed") == 35, "all connections closed")


@pytest.mark.parametrize(
    ("behaviour", "timeout", "kinds", "lost"),
    [
        (drops_midway, "30s", {"truncated": 5}, 5),
        (resets_midway, "30s", {"reset": 5}, 5),
        pytest.param(slow, "2s", {"timeout": 5}, 5, marks=pytest.mark.slow),
        pytest.param(late(3.0), "2s", {"timeout": 5}, 5, marks=pytest.mark.slow),
        (silent, "500ms", {"no_reply": 5}, 5),
    ],
)
def test_failures_are_counted_by_kind(
    behaviour: Behaviour, timeout: str, kinds: dict[str, int], lost: int
) -> None:
    """The test ends with the last of its connections."""
    with Service(behaviour) as service:
        code, result = stressed(service.target, "-c", "5", "-d", "50s", "--timeout", timeout)
    assert code == 1
    assert result["passed"] is False
    assert result["totals"]["errors"] == kinds
    assert result["totals"]["connections_opened"] == 5
    assert result["totals"]["connections_lost"] == lost
    assert result["reasons"]


def test_wrong_bytes_are_corrupt() -> None:
    with Service(wrong) as service:
        code, result = stressed(service.target, "-c", "5", "-d", "1s")
    assert code == 1
    totals = result["totals"]
    assert set(totals["errors"]) == {"corrupt"}
    assert totals["errors"]["corrupt"] == totals["messages"] >= 5
    assert totals["connections_lost"] == 0


def test_a_duplicated_reply_is_counted_and_ends_its_connection() -> None:
    """After a duplicate, it is unknown where the next reply begins."""
    with Service(doubled) as service:
        code, result = stressed(service.target, "-c", "5", "-d", "50s")
    assert code == 1
    assert result["totals"]["errors"] == {"duplicated": 5}
    assert result["totals"]["connections_lost"] == 5


@pytest.mark.slow
def test_a_target_that_refuses_connections_is_reported(unused_port: int) -> None:
    target = f"127.0.0.1:{unused_port}"
    code, result = stressed(target, "-c", "5", "-c", "50")
    assert code == 1
    assert result["totals"]["errors"] == {"refused": 5}
    assert result["totals"]["connections_failed"] == 5
    assert result["reasons"] == [
        "5 connections: 5 connections could not be opened (refused 5)",
        "no message came back",
        "1 of 2 stages not run",
    ]
    result_as_text = run([*STRESS, target, "-c", "5"])
    assert result_as_text.returncode == 1
    assert b"FAILED" in result_as_text.stdout
    assert b"5 refused" in result_as_text.stdout
    assert b"none" in result_as_text.stdout
    assert b"p50" not in result_as_text.stdout


@pytest.mark.slow
def test_a_target_that_dies_ends_the_test(echo_server: EchoServerProcess) -> None:
    client = subprocess.Popen(
        [*STRESS, echo_server.url, "-c", "20", "-d", "60s", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    until(lambda: echo_server.log().count("connection accepted") == 20, "all connected")
    echo_server.signal(signal.SIGKILL)
    # Every connection is lost, and there is nothing to wait for.
    output, _ = client.communicate(timeout=DEADLINE)
    assert client.returncode == 1
    totals = json.loads(output)["totals"]
    assert totals["connections_lost"] == 20
    assert set(totals["errors"]) <= {"reset", "closed"}


def test_an_unknown_host_is_refused() -> None:
    result = run([*STRESS, "nosuchhost.invalid:7"])
    assert result.returncode == 1
    assert b"cannot connect to tcp://nosuchhost.invalid:7: " in result.stderr.splitlines()[-1]


def interrupted(client: subprocess.Popen[bytes], number: signal.Signals) -> tuple[str, str]:
    client.send_signal(number)
    output, errors = client.communicate(timeout=DEADLINE)
    return output.decode(), errors.decode()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_a_test_with_its_result(number: signal.Signals) -> None:
    client = subprocess.Popen(
        [*STRESS, "-c", "50", "-d", "60s"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    assert client.stderr is not None
    while b"stage 1 of 1" not in client.stderr.readline():
        pass
    output, _ = interrupted(client, number)
    assert client.returncode == 130
    assert "INTERRUPTED" in output
    assert "50 connections" in output


@pytest.mark.slow
def test_ctrl_c_works_while_the_generators_start() -> None:
    """The terminal sends the signal to all processes of the group, at any time."""
    client = subprocess.Popen(
        [*STRESS, "-c", "50", "-d", "60s", "--processes", "4"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        start_new_session=True,
    )
    until(lambda: generators(client.pid), "a generator")
    os.killpg(client.pid, signal.SIGINT)
    _, errors = client.communicate(timeout=DEADLINE)
    assert client.returncode == 130
    assert b"Traceback" not in errors


@pytest.mark.slow
def test_ctrl_c_ends_a_thousand_blocked_threads(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    arrived: list[int] = []

    def note_and_ignore(connection: Any, over: Any) -> None:
        connection.recv(100)
        arrived.append(1)
        over.wait(DEADLINE)

    with Service(note_and_ignore) as service:
        client = subprocess.Popen(
            [*STRESS, service.target, "-c", "1000", "-d", "60s", "-o", str(output)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        until(lambda: len(arrived) == 1000, "all threads to wait for their replies")
        interrupted(client, signal.SIGINT)
    assert client.returncode == 130
    totals = json.loads(output.read_text())["totals"]
    assert (totals["connections_opened"], totals["messages"]) == (1000, 0)
    assert totals["errors"] == {}


def test_a_second_ctrl_c_quits_at_once() -> None:
    """The first one is still being handled, because the generator is suspended."""
    client = subprocess.Popen(
        [*STRESS, "-c", "5", "-d", "60s"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    generator = until(lambda: generators(client.pid), "a generator")[0]
    generator.suspend()

    def quits() -> bool:
        # Two signals in quick succession may be delivered as one.
        client.send_signal(signal.SIGINT)
        return client.poll() is not None

    until(quits, "the client to quit")
    assert client.returncode == 130
    generator.resume()
    client.communicate(timeout=DEADLINE)


def test_a_second_ctrl_c_leaves_the_live_screen_at_the_beginning_of_a_line() -> None:
    stress = [*STRESS, "-c", "5", "-d", "60s"]
    terminal = pexpect.spawn(
        stress[0], stress[1:], env=environment(TERM="xterm"), timeout=DEADLINE, encoding="utf-8"
    )
    with terminal:
        terminal.expect_exact("s left")
        assert terminal.pid is not None
        generator = generators(terminal.pid)[0]
        generator.suspend()

        def quits() -> bool:
            terminal.kill(signal.SIGINT)
            return not terminal.isalive()

        until(quits, "the client to quit")
        generator.resume()
        terminal.expect(pexpect.EOF)
    assert terminal.exitstatus == 130
    assert str(terminal.before).endswith("\x1b[?25h\r\n")


def generators(pid: int) -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process(pid).children(recursive=True)
        if "spawn_main" in " ".join(child.cmdline())
    ]


def test_a_generator_that_dies_is_reported() -> None:
    client = subprocess.Popen(
        [*STRESS, "-c", "5", "-d", "60s"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    until(lambda: generators(client.pid), "a generator")[0].kill()
    _, errors = client.communicate(timeout=DEADLINE)
    assert client.returncode == 1
    assert errors.decode().splitlines()[-1] == (
        "echo-load: error: generator-1 died with exit code -9"
    )


@pytest.mark.slow
def test_a_local_server_that_dies_is_reported() -> None:
    client = subprocess.Popen(
        [*STRESS, "-c", "5", "-d", "60s", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )

    def servers() -> list[psutil.Process]:
        children = psutil.Process(client.pid).children()
        return [child for child in children if "echo_server" in " ".join(child.cmdline())]

    until(lambda: generators(client.pid), "a generator")
    servers()[0].kill()
    output, _ = client.communicate(timeout=DEADLINE)
    assert client.returncode == 1
    assert any("exit code -9" in reason for reason in json.loads(output)["reasons"])


def test_a_local_server_that_does_not_start_is_reported(tmp_path: Path) -> None:
    (tmp_path / "echo_server").mkdir()
    (tmp_path / "echo_server" / "__init__.py").touch()
    (tmp_path / "echo_server" / "__main__.py").write_text("raise SystemExit('out of order')")
    result = run(STRESS, PYTHONPATH=str(tmp_path))
    assert result.returncode == 3
    assert result.stderr.decode().splitlines()[-1] == (
        "echo-load: error: echo-server did not start: out of order"
    )


def test_an_unwritable_file_is_refused_before_the_test(tmp_path: Path) -> None:
    result = run([*STRESS, "-d", "1h", "-o", str(tmp_path)])
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.slow
def test_standard_output_is_json_only_and_progress_is_plain_text(
    echo_server: EchoServerProcess,
) -> None:
    result = run([*STRESS, echo_server.url, "-c", "2", "-d", "1s", "--json"])
    assert json.loads(result.stdout)["passed"] is True
    assert b"\x1b" not in result.stderr
    result = run([*STRESS, echo_server.url, "-c", "2", "-d", "1s"])
    assert b"\x1b" not in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["", "NO_COLOR"])
def test_a_terminal_shows_a_live_screen(echo_server: EchoServerProcess, setting: str) -> None:
    child = pexpect.spawn(
        sys.executable,
        ["-m", "echo_load", "stress", echo_server.url, "-c", "20", "-d", "3s"],
        env=environment(TERM="xterm-256color", **({setting: "1"} if setting else {})),
        encoding="utf-8",
        timeout=DEADLINE,
        dimensions=(40, 110),
    )
    for shown in ("20 connections", "running", "s left", "msg/s", "back", "p50", "p99", "errors"):
        child.expect(shown)
    child.expect("PASSED")
    child.expect(pexpect.EOF)
    output = str(child.before)
    child.close()
    assert child.exitstatus == 0
    assert not (setting and re.search(r"\x1b\[[0-9;]*3[0-9]", output))


@pytest.mark.slow
def test_a_generator_does_not_outlive_its_controller() -> None:
    client = subprocess.Popen(
        [*STRESS, "-c", "5", "-d", "60s"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
        start_new_session=True,
    )
    (generator, *_) = until(lambda: generators(client.pid), "a generator")
    servers = [child for child in psutil.Process(client.pid).children() if child != generator]
    client.kill()
    client.wait(DEADLINE)
    until(lambda: not generator.is_running(), "the generator to end")
    for server in servers:
        with suppress(psutil.NoSuchProcess):
            server.terminate()
