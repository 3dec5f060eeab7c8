"""The live screen on a terminal."""

from __future__ import annotations

import io
import re
import signal
import sys
from collections import Counter

import pexpect
import pytest
from rich.console import Console

from echo_load.plan.plan import Plan
from echo_load.report.live import LiveScreen
from echo_load.runner.generator import Update
from echo_load.runner.observer import Progress
from echo_load.runner.tally import Tally
from support.processes import DEADLINE, StartServer, environment
from support.updates import snapshot

# Spaces, and control sequences of a terminal.
_GAP = r"(?:\s|\x1b\[[\d;]*m)+"


def shown(width: int) -> list[str]:
    """Return the screen of a test whose target did not answer in the second of three seconds."""
    plan = Plan(rate=1000, duration=30)
    tally = Tally(plan, plan.run_stages, 1, 1)
    tally.begin(0)
    seconds = [[100] * 1000, [], [100] * 100]
    errors = Counter({"timeout": 7})
    taken = snapshot(3.01, seconds, opened=100, bytes_received=64000, errors=errors)
    tally.take(0, Update("running", {0: taken}))
    terminal = io.StringIO()
    screen = LiveScreen(Console(file=terminal, width=width, height=30, force_terminal=True))
    screen.draw(Progress(1, 1, "running", 3.2, tally))
    # It is drawn for a last time before it is removed.
    screen.close()
    drawn = terminal.getvalue().rpartition("stage 1 of 1")
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", drawn[1] + drawn[2])
    return [line.rstrip() for line in text.splitlines() if line.rstrip()]


def test_seconds_without_a_reply_are_gaps() -> None:
    heading, bar, figures, rates, p99s, kinds = shown(width=110)
    assert heading == "stage 1 of 1  1,000 msg/s on 100 connections  running"
    assert bar.endswith("26.8 s left")
    assert figures == (
        "connections 100   msg/s 100   back 0 B/s (0 bit/s)   p50 100 µs   p99 100 µs   errors 7"
    )
    assert (rates, p99s) == ("msg/s █▁▂ 100", "p99   █ █ 100 µs")
    assert kinds == "timeout 7"


def test_figures_are_not_broken_on_a_narrow_terminal() -> None:
    _, _, first, second, *_ = shown(width=80)
    assert first == "connections 100   msg/s 100   back 0 B/s (0 bit/s)"
    assert second == "p50 100 µs   p99 100 µs   errors 7"


@pytest.mark.slow
def test_a_target_that_dies_is_seen_at_once(start_server: StartServer) -> None:
    servers = [start_server(), start_server()]
    urls = [server.url for server in servers]
    child = pexpect.spawn(
        sys.executable,
        ["-m", "echo_load", "run", *urls, "-c", "4", "-r", "400", "-d", "1h"],
        env=environment(TERM="xterm-256color"),
        encoding="utf-8",
        timeout=DEADLINE,
        dimensions=(24, 80),
    )

    def row(url: str, figures: str) -> str:
        return re.escape(url) + "".join(_GAP + one for one in figures.split())

    answers = r"2 [\d,]+ [\d.,]+ \S+ [\d.,]+ \S+ 0"
    for url in urls:
        child.expect(row(url, answers))
    servers[1].process.kill()
    child.expect(row(urls[1], r"0 0 - - [1-9]\d*"))
    child.expect(row(urls[0], answers))
    child.kill(signal.SIGINT)
    child.expect("INTERRUPTED")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
