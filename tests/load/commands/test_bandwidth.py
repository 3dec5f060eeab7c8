"""`echo-load run --rate 100MB/s`: an open loop by bytes, and the bandwidth in every report."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from echo_core.units import format_bandwidth
from echo_load.results.compare import compare
from support.processes import LOAD, StartServer, loaded, run


@pytest.mark.parametrize(
    ("rate", "payload", "rate_in_messages", "size"),
    [
        ("50kB/s", ["--payload-size", "100"], 500, 100),
        ("400kbit/s", ["--payload-size", "100"], 500, 100),
        ("100kB/s", ["--payload-size", "100-300"], 500, 200),
        ("50 kB/s", [], 781.25, 64),
        ("3kB", ["--message", "hällo"], 500, 6),
    ],
)
@pytest.mark.slow
def test_a_rate_in_bytes_is_sent(
    start_server: StartServer, rate: str, payload: list[str], rate_in_messages: float, size: float
) -> None:
    code, result = loaded(
        "run", start_server().url, "-c", "10", "-d", "1s", "--rate", rate, *payload
    )
    plan, totals = result.plan, result.totals
    assert (code, plan.rate, plan.bytes_per_message) == (0, rate_in_messages, size)
    assert totals.messages == math.ceil(rate_in_messages)
    assert totals.bytes_sent == pytest.approx(totals.messages * size, rel=0.1)
    assert totals.bytes_per_second == totals.bytes_received / totals.seconds
    assert f"{rate_in_messages:,.0f} msg/s on 10 connections" in result.stages[0].name


@pytest.mark.slow
def test_a_rate_in_bytes_goes_by_the_size_of_the_payload_file(
    start_server: StartServer, tmp_path: Path
) -> None:
    file = tmp_path / "payload"
    file.write_bytes(b"x" * 250)
    code, result = loaded(
        *("run", start_server().url, "-c", "5", "-d", "1s", "--rate", "50kB/s"),
        *("--payload-file", str(file)),
    )
    assert (code, result.plan.rate, result.plan.bytes_per_message) == (0, 200, 250)
    assert (result.totals.messages, result.totals.bytes_received) == (200, 50_000)


@pytest.mark.slow
def test_stages_and_their_warm_up_may_be_bandwidths(start_server: StartServer) -> None:
    server = start_server("--admin", "127.0.0.1:0")
    code, result = loaded(
        *("run", server.url, "-c", "10", "--payload-size", "100", "--reconcile", server.admin),
        *("--rate", "20kB/s", "--warmup", "500ms", "--stages", "10kB-30kB/300ms,320kbit/100ms"),
    )
    assert (code, result.plan.rate) == (0, 200)
    assert [(stage.first, stage.last) for stage in result.plan.stages] == [(100, 300), (400, 400)]
    assert [stage.messages for stage in result.stages] == [60, 40]
    assert result.stages[1].name == "40 kB/s (320 kbit/s), 400 msg/s on 10 connections"
    assert result.reconciliation is not None
    # The warm-up had 100 messages.
    assert (result.reconciliation.balanced, result.reconciliation.sent) == (True, 200 * 100)


def test_the_rate_may_come_from_the_environment_or_a_file(
    start_server: StartServer, tmp_path: Path
) -> None:
    arguments = [*LOAD, "run", start_server().url, "-c", "2", "-n", "5", "--json"]
    config = tmp_path / "settings.toml"
    config.write_text('rate = "64kB/s"\n')
    for ended in (
        run(arguments, ECHO_LOAD_RATE="64kB/s"),
        run([*arguments, "--config", str(config)]),
    ):
        assert json.loads(ended.stdout)["plan"]["rate"] == 1000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rate", "100Mb/s"], "--rate: '100Mb/s' may mean bits or bytes; write 100Mbit/s or"),
        (["--rate", "100XB/s"], "--rate: '100XB/s' is not a bandwidth; write it as in 100MB/s"),
        (["--rate", "0MB/s"], "--rate: '0MB/s' is not a rate above 0; write it as in 10k or"),
        (["--rate", "-5MB/s"], "--rate: '-5MB/s' is not a bandwidth"),
        (["--rate", "999TB/s"], "messages per second is above 100,000,000"),
        (["--rate", "1MB/s", "--payload-file", "/nowhere"], "--payload-file /nowhere: No such"),
        (["--rate", "1MB/s", "--payload-file", "/dev/null"], "is empty or not a regular file"),
        (["--rate", "1MB/s", "--message", ""], "--message is empty; it needs at least one byte"),
        (["--rate", "--stages", "1Mb/1s"], "--stages: stage '1Mb/1s': '1Mb' may mean bits or"),
        (["--rate", "--stages", "1-1MB/1s"], "'1' has no unit, but the other level has one"),
        (["--stages", "1MB/1s"], "--stages: stage '1MB/1s': '1MB' is not a count"),
        (
            ["--rate", "64kB/s", "--stages", "1MB/1s"],
            "--rate 64 kB/s (512 kbit/s), 1,000 msg/s has no effect: the stages are rates",
        ),
        (["--threshold", "bytes_per_second>5"], None),
        (["--threshold", "bytes_per_second>5ms"], "'5ms' is not a bandwidth; write it as in"),
        (["--threshold", "bits_per_second>1Gb"], "'1Gb' may mean bits or bytes; write 1Gbit/s"),
        (["--threshold", "bytes_per_second{stage=2}>1"], "there is no stage 2; the test has 1"),
    ],
)
def test_bad_bandwidths_are_refused_in_one_line(arguments: list[str], said: str | None) -> None:
    # The target refuses connections: what is not refused fails.
    ended = run([*LOAD, "run", "127.0.0.1:1", "-n", "1", "-c", "1", *arguments])
    errors = ended.stderr.decode()
    if said is None:
        assert ended.returncode == 1
        return
    assert (ended.returncode, errors.count("\n"), ended.stdout) == (2, 1, b"")
    assert said in errors


@pytest.mark.slow
def test_the_bandwidth_is_in_every_report(start_server: StartServer, tmp_path: Path) -> None:
    output, page = tmp_path / "a.json", tmp_path / "a.html"
    ended = run(
        [
            *(*LOAD, "run", start_server().url, "-c", "10", "-d", "1s", "--rate", "1MB/s"),
            *("--payload-size", "1000", "-o", str(output), "--html", str(page)),
            *("--threshold", "bytes_per_second>0.1MB", "--threshold", "bits_per_second>=0.8Mbit"),
        ]
    )
    shown = ended.stdout.decode()
    assert ended.returncode == 0, shown
    totals = json.loads(output.read_text())["totals"]
    assert totals["bytes_per_second"] == 1e6 / totals["seconds"]
    # The last reply may have come after the end.
    measured = format_bandwidth(totals["bytes_per_second"])
    assert "1 MB/s (8 Mbit/s), 1,000 msg/s on 10 connections" in shown
    assert f"{measured} each way" in shown
    assert f"bytes_per_second>0.1MB  kept  {measured}" in shown
    assert f"bits_per_second>=0.8Mbit  kept  {measured}" in shown
    # A key figure, and one of the only stage.
    assert page.read_text().count(f"s, {measured}</dd>") == 1
    assert page.read_text().count(f"<td>{measured}</td>") == 1


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["bytes_per_second>1GB", "bits_per_second>8Gbit"])
def test_a_bandwidth_that_is_too_low_exits_with_99(start_server: StartServer, metric: str) -> None:
    code, result = loaded(
        *("run", start_server().url, "-c", "2", "-n", "50", "--threshold", metric)
    )
    (one,) = result.thresholds
    assert (code, result.verdict, one.passed) == (99, "crossed", False)
    factor = 8 if metric.startswith("bits") else 1
    assert one.value == result.totals.bytes_per_second * factor
    assert result.reasons == [f"{metric} was crossed: {one.measured}"]
    assert "bit/s)" in one.measured


@pytest.mark.slow
def test_a_bandwidth_that_is_too_low_aborts(start_server: StartServer) -> None:
    code, result = loaded(
        *("run", start_server().url, "-c", "2", "-d", "1h", "--rate", "1kB/s"),
        *("--abort-on", "bytes_per_second<1MB"),
    )
    assert (code, result.verdict) == (99, "crossed")
    assert 1 <= result.totals.seconds < 3600


@pytest.mark.slow
def test_bandwidths_are_compared(start_server: StartServer) -> None:
    """The second result has as many messages, but twice as large."""
    url = start_server().url
    results = [
        loaded(
            *("run", url, "-c", "4", "-d", "300ms", "--repeat", "4", "--rate", "200"),
            *("--payload-size", size),
        )[1]
        for size in ("100", "200")
    ]
    changes = {change.figure: change for change in compare(*results).changes}
    messages, bandwidth = changes["messages"], changes["bandwidth"]
    assert bandwidth.unit == "bytes per second"
    # On a busy machine the rates of the repeats vary.
    assert bandwidth.verdict in {"better", "too noisy"}
    assert bandwidth.baseline == pytest.approx(100 * messages.baseline)
    assert bandwidth.other == pytest.approx(200 * messages.other)
    assert 1 + bandwidth.change == pytest.approx(2 * (1 + messages.change))


@pytest.mark.slow
def test_the_bytes_of_a_stage_are_those_of_its_messages(start_server: StartServer) -> None:
    # What is due in the first stage comes back during the second one.
    server = start_server("--rate-limit", "20kB")
    code, result = loaded(
        *("run", server.url, "-c", "2", "--rate", "--stages", "2k/300ms,100/1s"),
        *("--threshold", "bytes_per_second{stage=2}<10kB"),
    )
    assert code == 0, result.reasons
    first, second = result.stages
    assert (first.messages, second.messages) == (600, 100)
    assert (first.bytes_received, second.bytes_received) == (600 * 64, 100 * 64)
    assert (first.bytes_sent, second.bytes_sent) == (600 * 64, 100 * 64)
    assert first.bytes_per_second == pytest.approx(first.messages_per_second * 64)
    assert result.thresholds[0].value == pytest.approx(second.messages_per_second * 64)
