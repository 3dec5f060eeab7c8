"""The progress of tests without a terminal, and on one that is to be quiet."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pexpect
import pytest

from echo_load.plan.plan import Plan
from echo_load.report.progress_lines import has_figures, progress_line
from echo_load.runner.generator import Update
from echo_load.runner.observer import Progress
from echo_load.runner.tally import Tally
from support.processes import (
    DEADLINE,
    LOAD,
    EchoServerProcess,
    StartServer,
    environment,
    run,
)
from support.updates import snapshot

# What a live screen sends to a terminal: it moves and hides the cursor.
LIVE = re.compile(rb"\x1b\[(\d*A|\?25l|2K)")
FIGURES = r"(\d+) connections?, ([\d,]+) msg/s, p99 [\d.,]+ (?:µs|ms|s), "


def lines(stderr: bytes, pattern: str) -> list[re.Match[str]]:
    """Return the lines of standard error that match a pattern."""
    assert not LIVE.search(stderr)
    found = [re.fullmatch(pattern, line) for line in stderr.decode().splitlines()]
    return [one for one in found if one is not None]


def progress_of(seconds: Sequence[Sequence[int]], elapsed: float, **counts: Any) -> Progress:
    """Return the progress of a test whose replies took these microseconds in each second."""
    plan = Plan(rate=1000, duration=30)
    tally = Tally(plan, plan.run_stages, 1, 1)
    tally.begin(0)
    tally.take(0, Update("running", {0: snapshot(elapsed, seconds, **counts)}))
    return Progress(1, 1, "running", elapsed, tally)


def test_rate_and_p99_are_those_of_the_last_complete_seconds() -> None:
    # The first second is over for too long, the last one is not yet over.
    seconds = [
        [9_000_000] * 999,
        *([100] * 99 for _ in range(4)),
        [100] * 94 + [3000] * 10,
        [1] * 50,
    ]
    line = progress_line(progress_of(seconds, 6.6, opened=12, closed=2))
    assert line == "6s of 30s: 10 connections, 100 msg/s, p99 3 ms, 0 errors"
    line = progress_line(progress_of(seconds, 6.6, opened=1), with_stage=True)
    assert line.startswith("1,000 msg/s on 100 connections, 6s of 30s: 1 connection, 100 msg/s")


def test_there_is_no_line_before_the_first_complete_second() -> None:
    assert not has_figures(progress_of([[100] * 10, [100]], 1.4))
    assert has_figures(progress_of([[100] * 10, [100]], 1.6))


def test_a_target_that_does_not_answer() -> None:
    errors = Counter({"timeout": 3, "reset": 1200})
    line = progress_line(progress_of([[100]], 9.9, opened=2, errors=errors))
    assert line == "9s of 30s: 2 connections, no replies, 1,203 errors (reset 1,200, timeout 3)"


@pytest.mark.slow
def test_a_line_every_few_seconds(echo_server: EchoServerProcess) -> None:
    ended = run([*LOAD, "run", echo_server.url, "-r", "200", "-c", "3", "-d", "7s"])
    assert ended.returncode == 0, ended.stderr.decode()
    found = lines(ended.stderr, rf"\ds of 7s: {FIGURES}0 errors")
    assert [one[1] for one in found] == ["3"], ended.stderr.decode()
    assert b"s of 7s" not in ended.stdout


@pytest.mark.slow
def test_errors_are_counted_by_kind(start_server: StartServer) -> None:
    server = start_server("--fault", "corrupt@50%")
    ended = run([*LOAD, "run", server.url, "-r", "50", "-c", "2", "-d", "6.5s", "--json"])
    assert ended.returncode == 1
    assert lines(ended.stderr, rf"\ds of 6.5s: {FIGURES}\d+ errors \(corrupt \d+\)")
    assert json.loads(ended.stdout)["verdict"] == "failed"


@pytest.mark.slow
def test_connections_that_take_long_to_open(echo_server: EchoServerProcess) -> None:
    ended = run([*LOAD, "hold", echo_server.url, "-c", "13", "--connect-rate", "2", "-d", "100ms"])
    assert ended.returncode == 0, ended.stderr.decode()
    assert lines(ended.stderr, r"connecting: \d+ of 13 connected")


@pytest.mark.slow
def test_a_warm_up(echo_server: EchoServerProcess) -> None:
    ended = run([*LOAD, "run", echo_server.url, "-c", "2", "-d", "100ms", "--warmup", "6.5s"])
    assert lines(ended.stderr, rf"warming up, \ds: {FIGURES}0 errors")


@pytest.mark.slow
def test_the_steps_of_a_capacity(echo_server: EchoServerProcess) -> None:
    search = ("--start", "100", "--highest", "100", "-d", "6.5s", "--repeat", "1")
    slo = ("--slo", "p99<1m")
    ended = run([*LOAD, "capacity", echo_server.url, *search, *slo, "-c", "2"])
    assert ended.returncode == 0, ended.stderr.decode()
    pattern = rf"100 msg/s on 2 connections, \ds of 6.5s: {FIGURES}0 errors"
    assert lines(ended.stderr, pattern), ended.stderr.decode()


@pytest.mark.slow
def test_a_search_for_an_idle_timeout(start_server: StartServer) -> None:
    ended = run([*LOAD, "idle", start_server().url, "--up-to", "7s"])
    assert ended.returncode == 0, ended.stderr.decode()
    pattern = r"round 1  [\d.]+s  \d+ connections? idle, the longest for 7 s; kept up to .+"
    assert lines(ended.stderr, pattern), ended.stderr.decode()


@pytest.mark.slow
def test_a_watch(start_server: StartServer) -> None:
    ended = run([*LOAD, "watch", start_server().url, "-d", "12s", "-c", "2"])
    assert ended.returncode == 0, ended.stderr.decode()
    pattern = rf"\d+s of 12s: {FIGURES}\d+ messages? lost, \d outages?"
    assert lines(ended.stderr, pattern), ended.stderr.decode()


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "-c", "2", "-d", "1s", "--warmup", "100ms", "--prometheus", "0"),
        ("hold", "-c", "2", "--cycle", "100ms"),
        ("stress", "-c", "2", "-d", "1s"),
        ("capacity", "--start", "100", "--highest", "100", "-d", "200ms", "--slo", "p99<1m"),
        ("idle", "--up-to", "500ms"),
        ("watch", "-d", "200ms"),
    ],
    ids=lambda arguments: str(arguments[0]),
)
def test_quiet_is_the_result_alone(
    echo_server: EchoServerProcess, arguments: tuple[str, ...]
) -> None:
    command, *options = arguments
    quiet = [*LOAD, command, echo_server.url, *options, "-q"]
    ended = run(quiet)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert f"echo-load {command} {echo_server.url}: ".encode() in ended.stdout
    ended = run([*quiet, "--json"], ECHO_LOAD_QUIET="1")
    assert ended.stderr == b""
    assert json.loads(ended.stdout)["command"] == command


def test_quiet_prints_errors(unused_port: int) -> None:
    target = f"127.0.0.1:{unused_port}"
    ended = run([*LOAD, "watch", target, "--quiet"])
    assert (ended.returncode, ended.stdout) == (1, b"")
    (line,) = ended.stderr.decode().splitlines()
    assert line.startswith("echo-load: error: ")
    ended = run([*LOAD, "run", target, "-n", "1", "--quiet", "--html", "/nowhere/at/all"])
    assert ended.returncode == 2
    assert b"cannot write /nowhere/at/all" in ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("options", [["-q"], []])
def test_a_terminal_has_no_live_screen_only_if_quiet(
    echo_server: EchoServerProcess, options: list[str]
) -> None:
    child = pexpect.spawn(
        sys.executable,
        ["-m", "echo_load", "run", echo_server.url, "-c", "2", "-d", "1s", *options],
        env=environment(TERM="xterm-256color"),
        timeout=DEADLINE,
        dimensions=(40, 110),
    )
    child.expect(pexpect.EOF)
    output = child.before
    assert isinstance(output, bytes)
    child.close()
    assert child.exitstatus == 0
    assert b"PASSED" in output
    assert bool(LIVE.search(output)) == (not options)
    assert (b"hub in 1 process" in output) == (not options)


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["FORCE_COLOR", "TTY_COMPATIBLE"])
def test_colours_in_a_log_are_no_live_screen(echo_server: EchoServerProcess, setting: str) -> None:
    test = [*LOAD, "run", echo_server.url, "-c", "2", "-d", "300ms"]
    ended = run(["env", f"{setting}=1", *test])
    assert ended.returncode == 0
    assert b"\x1b[1;32mPASSED" in ended.stdout
    assert lines(ended.stderr, r"stage 1 of 1: 2 connections")


@pytest.mark.slow
def test_a_dumb_terminal_has_lines(echo_server: EchoServerProcess) -> None:
    child = pexpect.spawn(
        sys.executable,
        ["-m", "echo_load", "run", echo_server.url, "-c", "2", "-d", "300ms"],
        env=environment(TERM="dumb"),
        timeout=DEADLINE,
    )
    child.expect("stage 1 of 1: 2 connections")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
