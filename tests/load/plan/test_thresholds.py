"""Thresholds: their syntax, and the consequences of crossing them."""

from __future__ import annotations

from array import array
from pathlib import Path

import pytest

from echo_core.errors import InvalidValueError
from echo_load.measure.histogram import LatencyHistogram
from echo_load.plan.thresholds import Figures, Threshold, written_rate, written_time
from echo_load.results.compare import compare
from support.processes import LOAD, StartServer, loaded, run

DISTRIBUTIONS = ("response", "service", "first_byte", "connect", "handshake", "kernel")


def figures(
    *,
    milliseconds: tuple[int, ...] = (),
    errors: dict[str, int] | None = None,
    seconds: float = 2.0,
    retransmits: int = 0,
    wrong: int = 0,
) -> Figures:
    latencies = {name: LatencyHistogram() for name in DISTRIBUTIONS}
    for factor, latency in enumerate(latencies.values(), 1):
        latency.record(array("q", [factor * one * 1_000_000 for one in milliseconds]))
    return Figures(
        seconds=seconds,
        latencies=latencies,
        counts={
            "messages": len(milliseconds),
            "bytes_received": 1_000_000,
            "connections_opened": 10,
            "connections_failed": 2,
            "connections_lost": 1,
            "retransmits": retransmits,
            "loss_burst": 3,
        },
        jitter_us=1500.0,
        errors=errors or {},
        attempts=len(milliseconds) + sum((errors or {}).values()) - wrong,
    )


HUNDRED = figures(milliseconds=tuple(range(1, 101)))


@pytest.mark.parametrize(
    ("text", "measured", "passed"),
    [
        ("p99<5ms", 0.099, False),
        ("p99<100ms", 0.099, True),
        ("p50 <= 50.1ms", 0.050, True),
        ("p50<50ms", 0.050, False),
        ("p99.5<1s", 0.100, True),
        ("p99_5<1s", 0.100, True),
        ("p100<1s", 0.100, True),
        ("response.p10<20ms", 0.010, True),
        ("service.p50<99ms", 0.100, False),
        ("first_byte.max<300.5ms", 0.300, True),
        ("connect.mean<1s", 0.202, True),
        ("handshake.p50<0.2s", 0.250, False),
        ("kernel.p50>1us", 0.300, True),
        ("mean<50.4ms", 0.0505, False),
        ("max<=100.001ms", 0.100, True),
        ("messages_per_second>49", 50, True),
        ("messages_per_second>0.1k", 50, False),
        ("bytes_per_second>=0.5MB", 500_000, True),
        ("bytes_per_second>500k/s", 500_000, False),
        ("bytes_per_second<=4Mbit/s", 500_000, True),
        ("bits_per_second>=4Mbit", 4_000_000, True),
        ("bits_per_second>4M", 4_000_000, False),
        ("bits_per_second>0.5MB/s", 4_000_000, False),
        ("messages>=100", 100, True),
        ("connections_opened>=10", 10, True),
        ("connections_failed<2", 2, False),
        ("connections_lost<=1", 1, True),
        ("retransmits<1", 0, True),
        ("jitter<2ms", 0.0015, True),
        ("jitter<1.4ms", 0.0015, False),
        ("loss_burst<3", 3, False),
        ("loss_burst<4", 3, True),
        ("errors<1", 0, True),
        ("errors<0.1%", 0, True),
        ("loss<=0%", 0, True),
    ],
)
def test_figures_are_compared_with_limits(text: str, measured: float, passed: bool) -> None:
    judged = Threshold.parse(text).judge(HUNDRED)
    assert judged.value == pytest.approx(measured, rel=2e-3)
    assert judged.passed is passed
    assert judged.threshold.replace(" ", "") == text.replace(" ", "")


def test_errors_are_limited_as_a_count_or_a_share_of_attempts() -> None:
    """Of 93 replies three were wrong, and seven did not arrive."""
    failed = figures(
        milliseconds=(1,) * 93,
        errors={"timeout": 4, "no_reply": 1, "lost": 2, "corrupt": 3},
        wrong=3,
    )
    assert Threshold.parse("errors<10").judge(failed).value == 10
    assert Threshold.parse("errors<11%").judge(failed).value == pytest.approx(0.10)
    assert Threshold.parse("loss<=7").judge(failed).value == 7
    judged = Threshold.parse("loss<7%").judge(failed)
    assert judged.value == pytest.approx(0.07)
    assert not judged.passed
    assert judged.measured == "7 %"


@pytest.mark.parametrize(
    "text",
    [
        *("p99<5ms", "mean<1s", "errors<1%", "messages_per_second>1", "bytes_per_second>1"),
        *("errors{stage=1}<1", "messages{stage=1}>=0"),
    ],
)
def test_a_threshold_is_not_kept_if_nothing_was_measured(text: str) -> None:
    judged = Threshold.parse(text).judge(figures(seconds=0.0))
    assert (judged.value, judged.passed) == (None, False)
    assert judged.measured == "nothing was measured"


@pytest.mark.parametrize(
    ("rate", "written"),
    [(0, "0"), (1 / 9, "0.111"), (1, "1"), (9.99, "9.99"), (9.999, "10"), (12345.6, "12,346")],
)
def test_rates_are_formatted_with_at_least_three_digits(rate: float, written: str) -> None:
    assert written_rate(rate) == written


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "'' is not a threshold; write it as in p99<5ms, errors<0.1% or"),
        ("p99", "'p99' is not a threshold"),
        ("p99<", "'p99<' is not a threshold"),
        ("p99=5ms", "'p99=5ms' is not a threshold"),
        ("<5ms", "'<5ms' is not a threshold"),
        ("p99<5ms,p50<1ms", "'p99<5ms,p50<1ms': '5ms,p50<1ms' is not a duration"),
        ("p99<5", "'p99<5': '5' has no unit; write it as in 5ms or 250us"),
        ("p99<5%", "'p99<5%': '5%' is not a duration; write it as in 10s"),
        ("p0<5ms", "'p0' is not a threshold metric; the metrics are p50, p99.9"),
        ("p101<5ms", "'p101' is not a threshold metric"),
        ("p<5ms", "'p' is not a threshold metric"),
        ("p99.<5ms", "'p99.' is not a threshold metric"),
        ("median<5ms", "'median' is not a threshold metric"),
        ("lateness.p99<5ms", "'lateness.p99' is not a threshold metric"),
        ("connect<5ms", "'connect' is not a threshold metric"),
        ("errors<fast", "'errors<fast': 'fast' is not a count; write it as in 100, 10k"),
        ("errors<101%", "'errors<101%': '101%' is not a percentage"),
        ("retransmits<1%", "'retransmits<1%': '1%' is not a count"),
        ("messages_per_second>1ms", "'messages_per_second>1ms': '1ms' is not a rate"),
        ("messages_per_second>1MB", "'messages_per_second>1MB': '1MB' is not a rate"),
        ("bytes_per_second>1ms", "'bytes_per_second>1ms': '1ms' is not a bandwidth"),
        ("bits_per_second>1Gb", "'bits_per_second>1Gb': '1Gb' may mean bits or bytes"),
    ],
)
def test_invalid_thresholds_are_refused(text: str, expected: str) -> None:
    with pytest.raises(InvalidValueError) as refused:
        Threshold.parse(text)
    assert str(refused.value).startswith(expected)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("p99<5ms", "p99<5ms"),
        ("p99>5ms", "p99<=5ms"),
        ("p99>=5ms", "p99<5ms"),
        ("errors>1%", "errors<=1%"),
        ("messages_per_second<100", "messages_per_second>=100"),
        ("messages_per_second>=100", "messages_per_second>=100"),
        ("bytes_per_second<1MB", "bytes_per_second>=1MB"),
        ("bits_per_second>=1", "bits_per_second>=1"),
    ],
)
def test_abort_conditions_may_be_written_either_way_round(text: str, kept: str) -> None:
    limit = Threshold.parse_abort(text)
    assert limit.aborts
    judged, other = limit.judge(HUNDRED), Threshold.parse_abort(kept).judge(HUNDRED)
    assert (judged.passed, judged.value) == (other.passed, other.value)
    # It is shown as the user wrote it.
    assert judged.name == f"--abort-on {text}"


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("errors==5", "write errors<=5, or errors>5 to stop on it"),
        ("errors == 1%", "write errors<=1%, or errors>1% to stop on it"),
        ("p99{stage=2}==5ms", "write p99{stage=2}<=5ms, or p99{stage=2}>5ms to stop on it"),
        ("retransmits<0", "write retransmits<=0, or retransmits>0 to stop on it"),
        ("errors>=0", "write errors<=0, or errors>0 to stop on it"),
        (
            "messages_per_second==1k",
            "write messages_per_second>=1k, or messages_per_second<1k to stop on it",
        ),
    ],
)
def test_a_condition_that_would_stop_every_test_is_refused(text: str, advice: str) -> None:
    with pytest.raises(InvalidValueError) as raised:
        Threshold.parse_abort(text)
    assert str(raised.value) == f"{text!r} would stop every test at its beginning; {advice}"
    # As a threshold it is judged at the end.
    assert not Threshold.parse(text).aborts


@pytest.mark.parametrize("text", ["errors==0", "errors==0%", "errors<=0", "errors>0", "p99>=5ms"])
def test_a_condition_that_holds_at_the_beginning_is_accepted(text: str) -> None:
    assert Threshold.parse_abort(text).judge_value(0)


def test_figures_known_only_at_the_end_cannot_abort_a_test() -> None:
    with pytest.raises(InvalidValueError, match="is only known at the end; use `thresholds`"):
        Threshold.parse_abort("messages>1000")


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (87.53e-6, "87.5 µs"),
        (0.00421, "4.21 ms"),
        (1.5, "1.5 s"),
        (0.0, "0 µs"),
        (0.5e-6, "0.5 µs"),
        (0.99949, "999 ms"),
        (0.9996, "1 s"),
        (4000.0, "4,000 s"),
    ],
)
def test_times_are_formatted_with_three_digits(seconds: float, written: str) -> None:
    assert written_time(seconds) == written


def test_a_threshold_that_is_kept_passes(start_server: StartServer) -> None:
    code, result = loaded(
        *("run", start_server().url, "-c", "2", "-n", "50"),
        *("--threshold", "p99<60s", "--threshold", "errors<1"),
    )
    assert (code, result.verdict, result.passed) == (0, "passed", True)
    assert [(one.threshold, one.passed) for one in result.thresholds] == [
        ("p99<60s", True),
        ("errors<1", True),
    ]


@pytest.mark.slow
def test_a_crossed_threshold_exits_with_99_and_is_in_every_report(
    start_server: StartServer, tmp_path: Path
) -> None:
    output, page = tmp_path / "a.json", tmp_path / "a.html"
    ended = run(
        [
            *(*LOAD, "run", start_server().url, "-c", "2", "-n", "50", "--threshold", "p50<1us"),
            *("-o", str(output), "--html", str(page)),
        ]
    )
    assert ended.returncode == 99
    text = ended.stdout.decode()
    assert "THRESHOLD CROSSED" in text
    assert "p50<1us was crossed: " in text
    assert b'"crossed"' in output.read_bytes()
    assert "p50&lt;1us" in page.read_text()
    again = run([*LOAD, "report", str(output)])
    assert again.returncode == 0
    assert again.stdout.decode() == text


@pytest.mark.slow
def test_a_kept_threshold_does_not_excuse_other_failures(start_server: StartServer) -> None:
    url = start_server("--fault", "corrupt@5%").url
    code, result = loaded(
        *("run", url, "-c", "2", "-n", "500", "--threshold", "errors<50%", "--threshold", "p99<1us")
    )
    assert (code, result.verdict) == (1, "failed")
    assert any("replies were not what was sent" in reason for reason in result.reasons)
    assert any(reason.startswith("p99<1us was crossed") for reason in result.reasons)


@pytest.mark.slow
def test_a_threshold_on_errors_allows_some_errors(start_server: StartServer) -> None:
    server = start_server("--fault", "reset@5%", "--admin", "127.0.0.1:0")
    arguments = ("run", server.url, "-c", "2", "-n", "500", "--reconcile", server.admin)
    code, result = loaded(*arguments)
    assert (code, result.verdict) == (1, "failed")
    code, result = loaded(*arguments, "--threshold", "errors<50%")
    assert result.totals.errors["reset"] > 0
    assert result.reconciliation is not None
    assert not result.reconciliation.balanced
    assert (code, result.verdict, result.reasons) == (0, "passed", [])
    code, result = loaded(*arguments, "--threshold", "errors<0.1%")
    assert (code, result.verdict) == (99, "crossed")
    # A threshold on loss does not tolerate resets.
    code, result = loaded(*arguments, "--threshold", "loss<50%")
    assert (code, result.verdict) == (1, "failed")


@pytest.mark.slow
def test_a_threshold_on_loss_allows_some_lost_datagrams(start_server: StartServer) -> None:
    url = start_server("--listen", "udp://127.0.0.1:0", "--fault", "drop@10%").url
    arguments = ("run", url, "-c", "4", "-n", "40", "--timeout", "2s")
    code, result = loaded(*arguments, "--threshold", "loss<60%")
    assert (code, result.verdict) == (0, "passed")
    lost = result.totals.errors["lost"]
    assert result.thresholds[0].value == lost / (result.totals.messages + lost)
    code, result = loaded(*arguments, "--threshold", "loss<0.1%")
    assert (code, result.verdict) == (99, "crossed")


@pytest.mark.slow
@pytest.mark.parametrize("limit", ["p50>1us", "errors<1"])
def test_a_test_is_aborted_when_its_limit_is_crossed(start_server: StartServer, limit: str) -> None:
    url = start_server("--fault", "reset@1%").url
    code, result = loaded(
        *("run", url, "-c", "2", "-d", "1h", "--abort-on", limit, "--threshold", "errors<100%")
    )
    assert (code, result.verdict) == (99, "crossed")
    assert result.reasons[0].endswith("; the test was stopped")
    assert result.totals.seconds < 3600
    (aborting, other) = sorted(result.thresholds, key=lambda one: not one.aborts)
    assert (aborting.aborts, aborting.passed, other.passed) == (True, False, True)


@pytest.mark.slow
def test_an_aborted_test_has_no_further_stages_or_repeats() -> None:
    code, result = loaded(
        *("stress", "-c", "2", "-c", "3", "-d", "2s", "--repeat", "2", "--abort-on", "p50>1us")
    )
    assert (code, result.verdict) == (99, "crossed")
    assert [stage.name for stage in result.stages] == ["2 connections"]
    assert len(result.repeats) == 1
    assert len(result.reasons) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "engine", "fault"),
    [
        ("tcp", "hub", "corrupt"),
        ("tcp", "threads", "corrupt"),
        ("tcp", "greenlets", "corrupt"),
        ("udp", "hub", "corrupt"),
        ("udp", "hub", "truncate"),
        ("udp", "hub", "reorder"),
    ],
)
@pytest.mark.parametrize("pipeline", ["1", "4"])
def test_a_wrong_reply_counts_as_one_message_and_one_attempt(
    start_server: StartServer, scheme: str, engine: str, fault: str, pipeline: str
) -> None:
    server = start_server("--listen", f"{scheme}://127.0.0.1:0", "--fault", f"{fault}@50%")
    _, result = loaded(
        *("run", server.url, "--engine", engine, "-c", "4", "-n", "1000", "--pipeline", pipeline),
        *("--threshold", "errors<1%", "--threshold", "loss<1%", "--timeout", "10s"),
    )
    totals, stage = result.totals, result.stages[0]
    (kind,) = totals.errors or {"none": 0}
    share = totals.errors.get(kind, 0) / 1000
    assert (totals.messages, totals.attempts, stage.attempts) == (1000, 1000, 1000)
    assert share > 0.05 or (fault, pipeline) == ("reorder", "1")
    assert [one.value for one in result.thresholds] == [share, 0]
    failed = next(one for one in compare(result, result).changes if one.figure == "failed")
    assert failed.baseline == share


@pytest.mark.parametrize(
    ("text", "target", "whole"),
    [
        ("p99{tcp://h:1}<5ms", "tcp://h:1", "p99{tcp://h:1}<5ms"),
        ("p99{h:1}<5ms", "tcp://h:1", "p99{tcp://h:1}<5ms"),
        (" errors { udp://[::1]:7 } <= 1% ", "udp://[::1]:7", "errors{udp://[::1]:7}<=1%"),
        ("p50{unix:///tmp/a{b}}<1s", "unix:///tmp/a{b}", "p50{unix:///tmp/a{b}}<1s"),
        ("p99<5ms", None, "p99<5ms"),
    ],
)
def test_a_threshold_may_name_a_target(text: str, target: str | None, whole: str) -> None:
    one = Threshold.parse(text)
    assert (one.scope.target, one.text) == (target, whole)
    assert Threshold.parse(one.text) == one


def test_a_condition_to_abort_on_may_name_a_target() -> None:
    one = Threshold.parse_abort("p99{h:1}>1s")
    assert (one.scope.target, one.relation, one.aborts) == ("tcp://h:1", "<=", True)
