"""Summaries in Markdown of real tests, as a Markdown parser reads them."""

from __future__ import annotations

import signal
import subprocess
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from markdown_it import MarkdownIt

from echo_client.socket_options import BufferSizes
from echo_core.units import format_bandwidth
from echo_load.report.markdown import markdown
from echo_load.report.page.rows import NOTHING
from echo_load.results.result import Result, load_result
from support.misbehaving import Service, wrong
from support.processes import (
    DEADLINE,
    LOAD,
    EchoServerProcess,
    StartServer,
    environment,
    run,
)

SHORT = ("-c", "2", "-n", "20")
PARSER = MarkdownIt("commonmark").enable("table")


class Summary:
    """A summary as a reader sees it.

    Attributes:
        headings: text of the headings.
        items: text of the items of lists.
        tables: the rows of each table, the head first.
        blocks: the blocks of code.
        text: all text.
    """

    def __init__(self, content: str) -> None:
        self.headings: list[str] = []
        self.items: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.blocks: list[str] = []
        self.text = ""
        tokens = PARSER.parse(content)
        for before, token in pairwise(tokens):
            if token.type == "table_open":
                self.tables.append([])
            elif token.type == "tr_open":
                self.tables[-1].append([])
            elif token.type == "fence":
                self.blocks.append(token.content)
            elif token.type == "inline":
                self._add(before.type, "".join(one.content for one in token.children or ()))

    def _add(self, where: str, text: str) -> None:
        self.text += f"{text}\n"
        if where == "heading_open":
            self.headings.append(text)
        elif where in {"th_open", "td_open"}:
            self.tables[-1][-1].append(text)
        elif where == "paragraph_open":
            self.items.append(text)


def summarized(path: Path, *arguments: str) -> tuple[int, Result, Summary]:
    """Run a test; return its exit code, its result, and its summary."""
    page, saved = path / "summary.md", path / "result.json"
    ended = run([*LOAD, *arguments, "--markdown", str(page), "-o", str(saved)])
    assert b"Traceback" not in ended.stderr, ended.stderr.decode()
    return ended.returncode, load_result(saved), Summary(page.read_text())


def test_the_key_figures_of_each_stage(tmp_path: Path) -> None:
    code, result, summary = summarized(
        tmp_path, "run", "--stages", "2/200ms,1/200ms", "--threshold", "max<1h"
    )
    assert code == 0
    assert summary.headings == ["✅ echo-load run: passed", "Figures", "Thresholds"]
    (head, first, second, whole), (_, threshold) = summary.tables
    assert head[:5] == ["stage", "connections", "messages", "msg/s", "bandwidth"]
    for row, stage in zip((first, second), result.stages, strict=True):
        assert row[0] == stage.name
        assert row[2] == f"{stage.messages:,}"
        assert row[4] == format_bandwidth(stage.bytes_per_second)
        assert row[-1] == "0"
    assert whole[:3] == [
        "all",
        f"{result.totals.connections_opened:,}",
        f"{result.totals.messages:,}",
    ]
    assert threshold == ["max<1h", result.thresholds[0].measured, "✅ kept"]
    assert f"{result.totals.bytes_sent:,} bytes sent = received by the server" in summary.text
    assert result.targets[0] in summary.text
    assert summary.blocks == []


@pytest.mark.slow
def test_failures_with_the_first_wrong_replies(tmp_path: Path) -> None:
    with Service(wrong) as service:
        code, result, summary = summarized(tmp_path, "run", service.target, *SHORT)
    assert code == 1
    assert summary.headings[0] == "❌ echo-load run: failed"
    assert [item for item in summary.items if item in result.reasons] == result.reasons
    (block,) = summary.blocks
    assert block.startswith("first wrong replies\n  corrupt     connection ")
    assert "  received    " in block


@pytest.mark.slow
def test_the_figures_of_several_targets(start_server: StartServer, tmp_path: Path) -> None:
    names = ["a|b", "`c`"]
    urls = [f"unix://{tmp_path}/{name}" for name in names]
    servers = [start_server("--listen", url) for url in urls]
    limit = ("--threshold", f"max{{{urls[0]}}}<1us")
    code, result, summary = summarized(tmp_path, "run", *urls, *SHORT, *limit)
    assert [server.process.poll() for server in servers] == [None, None]
    assert code == 99
    assert summary.headings[0] == "❌ echo-load run: threshold crossed"
    assert summary.headings[1:] == ["Figures", "Targets", "Thresholds"]
    assert [row[0] for row in summary.tables[1][1:]] == urls
    assert [row[2] for row in summary.tables[1][1:]] == ["10", "10"]
    (row,) = summary.tables[2][1:]
    assert row == [f"max{{{urls[0]}}}<1us", result.thresholds[0].measured, "❌ crossed"]


@pytest.mark.slow
def test_the_jitter_and_the_losses_of_datagrams(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server("--listen", "udp://127.0.0.1:0")
    _, _, summary = summarized(tmp_path, "run", server.url, *SHORT)
    assert summary.tables[0][0][-2:] == ["jitter", "longest burst of losses"]
    assert summary.tables[0][1][-1] == "0"


@pytest.mark.slow
def test_the_steps_of_a_capacity(echo_server: EchoServerProcess, tmp_path: Path) -> None:
    limits = ("--slo", "p99<10s", "--start", "100", "--highest", "200")
    steps = ("-d", "300ms", "--repeat", "1")
    code, result, summary = summarized(tmp_path, "capacity", echo_server.url, *limits, *steps)
    assert (code, summary.headings[1]) == (0, "Steps")
    assert result.capacity is not None
    assert result.capacity.answer in summary.text
    assert {row[0] for row in summary.tables[0][1:]} == {"100", "200"}


@pytest.mark.slow
def test_the_pauses_of_an_idle_timeout(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server("--idle-timeout", "500ms")
    code, result, summary = summarized(tmp_path, "idle", server.url, "--up-to", "1s")
    assert (code, summary.headings[1]) == (0, "Pauses")
    assert result.idle is not None
    assert result.idle.answer in summary.items
    assert summary.tables[0][1][2] == "kept"


@pytest.mark.slow
def test_the_outages_of_a_watch(start_server: StartServer, tmp_path: Path) -> None:
    killed, lasting = start_server(), start_server()
    page = tmp_path / "summary.md"
    watching = subprocess.Popen(
        [*LOAD, "watch", killed.url, lasting.url, "--markdown", str(page)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    assert watching.stderr is not None
    assert watching.stderr.readline().startswith(b"watching 2 targets")
    killed.process.kill()
    killed.wait()
    while b"outage of" not in watching.stderr.readline():
        assert watching.poll() is None
    watching.send_signal(signal.SIGINT)
    watching.communicate(timeout=DEADLINE)
    assert watching.returncode == 0
    summary = Summary(page.read_text())
    assert summary.headings == ["⚠️ echo-load watch: 1 outage", "Targets", "Outages"]
    (_, out, kept), (_, outage) = summary.tables
    assert (out[0], out[2]) == (killed.url, "1")
    assert kept == [lasting.url, "100 %", "0", NOTHING]
    assert outage[-1] == killed.url


@pytest.mark.slow
def test_several_results_follow_one_another(echo_server: EchoServerProcess, tmp_path: Path) -> None:
    names = ("before", "after")
    for name in names:
        saved = tmp_path / f"{name}.json"
        assert run([*LOAD, "run", echo_server.url, *SHORT, "-o", str(saved)]).returncode == 0
    page = tmp_path / "summary.md"
    results = [str(tmp_path / f"{name}.json") for name in names]
    ended = run([*LOAD, "report", *results, "--markdown", str(page)])
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")
    headings = Summary(page.read_text()).headings
    assert headings == ["✅ before: passed", "Figures", "✅ after: passed", "Figures"]


@pytest.mark.slow
def test_a_comparison(start_server: StartServer, tmp_path: Path) -> None:
    results = []
    for name, options in (("before", ()), ("after", ("--fault", "delay=20ms"))):
        results.append(str(tmp_path / f"{name}.json"))
        load = ("-c", "2", "-d", "200ms", "--repeat", "5", "-o", results[-1])
        assert run([*LOAD, "run", start_server(*options).url, *load]).returncode == 0
    page = tmp_path / "comparison.md"
    ended = run([*LOAD, "compare", *results, "--fail-on", "worse", "--markdown", str(page)])
    assert ended.returncode == 99
    summary = Summary(page.read_text())
    assert summary.headings == ["❌ echo-load compare: worse"]
    ((head, *rows),) = summary.tables
    assert head[:3] == ["figure", "before (5x)", "after (5x)"]
    verdicts = {row[0]: row[-1] for row in rows}
    assert verdicts["response p50"] == "- worse"
    assert "WORSE after against before: " in summary.text
    for refused, said in ((results[1], "is an input of this command"), ("-", "is not a file")):
        ended = run([*LOAD, "compare", *results, "--markdown", refused])
        assert (ended.returncode, ended.stdout) == (2, b"")
        assert said in ended.stderr.decode()


def test_tls_and_a_lack_of_buffer_space_are_said(tmp_path: Path) -> None:
    _, result, _ = summarized(tmp_path, "run", *SHORT)
    totals = msgspec.structs.replace(result.totals, tls_handshakes={"TLSv1.3 A_CIPHER": 2})
    buffers = BufferSizes(requested=1 << 20, send=4096, receive=1 << 20)
    changed = msgspec.structs.replace(result, totals=totals, buffers=buffers)
    items = Summary(markdown([changed], ["a"]).decode()).items
    assert "TLSv1.3 A_CIPHER" in items
    assert buffers.shortfall in items


def test_a_generator_that_was_the_limit_is_said(tmp_path: Path) -> None:
    _, result, _ = summarized(tmp_path, "run", *SHORT)
    bound = msgspec.structs.replace(result.generator, bound=True, findings=["it was *late*"])
    changed = msgspec.structs.replace(result, generator=bound)
    summary = Summary(markdown([changed], ["a"]).decode())
    assert "the limit was the generator; it was *late*" in summary.text
