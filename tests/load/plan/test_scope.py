"""Thresholds on a stage or a target: their syntax, and what they judge."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest

from echo_core.errors import InvalidValueError
from echo_load.plan.scope import WHOLE_TEST, Scope
from echo_load.plan.thresholds import Threshold
from echo_load.report.html import render
from echo_load.results.result import load_result
from support.processes import LOAD, StartServer, loaded, run

TARGETS = ("tcp://h:1", "udp://h:2", "unix:///tmp/a,b")


@pytest.mark.parametrize(
    ("text", "scope", "written"),
    [
        ("stage=2", Scope(stage=2), "{stage=2}"),
        (" stage = 12 ", Scope(stage=12), "{stage=12}"),
        ("h:1", Scope("tcp://h:1"), "{tcp://h:1}"),
        # A host of that name.
        ("stage:2", Scope("tcp://stage:2"), "{tcp://stage:2}"),
        ("stage=2,h:1", Scope("tcp://h:1", 2), "{stage=2,tcp://h:1}"),
        ("udp://[::1]:7 , stage=2", Scope("udp://[::1]:7", 2), "{stage=2,udp://[::1]:7}"),
        ("unix:///a,b", Scope("unix:///a,b"), "{unix:///a,b}"),
        ("stage=1,unix:///a,b", Scope("unix:///a,b", 1), "{stage=1,unix:///a,b}"),
        ("unix:///a,b,stage=1", Scope("unix:///a,b", 1), "{stage=1,unix:///a,b}"),
    ],
)
def test_scopes(text: str, scope: Scope, written: str) -> None:
    assert Scope.parse(text) == scope
    assert str(scope) == written
    assert Scope.parse(written[1:-1]) == scope
    assert not scope.is_whole
    assert (str(WHOLE_TEST), WHOLE_TEST.is_whole) == ("", True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stage=0", "'0' is not the number of a stage; write {stage=1} for the first one"),
        ("stage=-1", "'-1' is not the number of a stage"),
        ("stage=1.5", "'1.5' is not the number of a stage"),
        ("stage=", "'' is not the number of a stage"),
        ("stage=last", "'last' is not the number of a stage"),
        ("stage=\u0661", "'\u0661' is not the number of a stage"),
        ("stage=9999999", "'9999999' is not the number of a stage"),
        ("stage=1,stage=2", "it names two stages; give a threshold for each"),
        ("stage=1,", "'' has no host"),
        (",stage=1", "'' has no host"),
        ("stage 2", "'stage 2' is not a host name"),
        ("", "'' has no host"),
    ],
)
def test_invalid_scopes_are_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        Scope.parse(text)
    assert str(caught.value).startswith(said)
    with pytest.raises(InvalidValueError) as caught:
        Threshold.parse(f"p99{{{text}}}<5ms")
    assert str(caught.value).startswith(f"{f'p99{{{text}}}<5ms'!r}: {said}")


def test_a_scope_is_that_of_the_test() -> None:
    for scope in (WHOLE_TEST, Scope(stage=3), Scope("udp://h:2", 1), Scope("unix:///tmp/a,b")):
        scope.check(TARGETS, 3)
    for scope, said in (
        (Scope(stage=4), "there is no stage 4; the test has 3 stages"),
        (Scope("tcp://h:1", 4), "there is no stage 4; the test has 3 stages"),
        (Scope("tcp://h:9", 1), "tcp://h:9 is not tested; the targets are tcp://h:1, "),
        (Scope("tcp://stage:2"), "; a stage is written as in {stage=2}"),
        (Scope("tcp://2:50007"), "; a stage is written as in {stage=2}"),
    ):
        with pytest.raises(InvalidValueError) as caught:
            scope.check(TARGETS, 3)
        assert said in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "'p99{stage=2}<1s': there is no stage 2; the test has 1 stage"),
        (["--stages", "5/1s"], "there is no stage 2; the test has 1 stage"),
        (["--repeat", "3"], "there is no stage 2; the test has 1 stage"),
    ],
)
@pytest.mark.parametrize("option", ["--threshold", "--abort-on"])
def test_a_stage_that_does_not_exist_is_a_usage_error(
    arguments: list[str], said: str, option: str
) -> None:
    ended = run([*LOAD, "run", "127.0.0.1:9", *arguments, option, "p99{stage=2}<1s"])
    message = ended.stderr.decode()
    assert (ended.returncode, message.count("\n"), ended.stdout) == (2, 1, b"")
    assert said in message


def thresholds(*limits: str) -> list[str]:
    return list(chain(*(("--threshold", limit) for limit in limits)))


@pytest.mark.slow
def test_a_threshold_on_a_stage_judges_its_figures_alone(start_server: StartServer) -> None:
    code, result = loaded(
        *("run", start_server().url, "-c", "10", "--rate", "--stages", "100/300ms,400/300ms"),
        *thresholds(
            *("messages{stage=1}==30", "messages{stage=2}==120", "messages==150"),
            *("messages_per_second{stage=1}<=100", "messages_per_second{stage=2}>30"),
            *("bytes_per_second{stage=2}>1kB", "p50{stage=1}<60s", "errors{stage=2}<1"),
        ),
    )
    assert (code, result.verdict, result.reasons) == (0, "passed", [])
    assert [one.value for one in result.thresholds[:3]] == [30, 120, 150]
    assert [one.stage for one in result.thresholds] == [1, 2, None, 1, 2, 2, 1, 2]
    first, second = result.stages
    values = [one.value for one in result.thresholds[3:6]]
    assert values == [
        first.messages_per_second,
        second.messages_per_second,
        second.bytes_per_second,
    ]
    assert result.thresholds[6].value == first.latency_us.response.p50 / 1e6


@pytest.mark.slow
def test_a_crossed_threshold_on_a_stage_is_in_every_report_with_its_scope(
    start_server: StartServer, tmp_path: Path
) -> None:
    output = tmp_path / "result.json"
    limits = ("messages{stage=1}>20", "messages{ stage = 2 }<100")
    ended = run(
        [
            *(*LOAD, "run", start_server().url, "-c", "10", "-o", str(output)),
            *("--rate", "--stages", "100/300ms,400/300ms", *thresholds(*limits)),
        ]
    )
    shown = ended.stdout.decode()
    assert ended.returncode == 99
    assert "messages{stage=2}<100 was crossed: 120" in shown
    assert "messages{stage=1}>20  kept  30" in shown
    result = load_result(output)
    assert [(one.threshold, one.stage) for one in result.thresholds] == [
        ("messages{stage=1}>20", 1),
        ("messages{stage=2}<100", 2),
    ]
    page = render([result], ["one"]).decode()
    assert "<code>messages{stage=2}&lt;100</code>" in page
    assert "crossed: 120" in page


@pytest.mark.slow
def test_thresholds_on_stages_with_connections_of_their_own_and_repeats() -> None:
    """The stages of a stress test are separate runs; a threshold is on all repeats of one."""
    code, result = loaded(
        *("stress", "-c", "2", "-c", "3", "-d", "200ms", "--repeat", "2"),
        *thresholds("connections_opened{stage=1}==4", "connections_opened{stage=2}==6"),
        *thresholds("p99{stage=2}<1us"),
    )
    assert (code, result.verdict) == (99, "crossed")
    assert [one.passed for one in result.thresholds] == [True, True, False]
    assert result.thresholds[2].value == result.stages[1].latency_us.response.p99 / 1e6


@pytest.mark.slow
def test_a_threshold_may_name_a_stage_and_a_target(start_server: StartServer) -> None:
    first, second = (start_server().url for _ in range(2))
    code, result = loaded(
        *("run", first, second, "-c", "4", "--rate", "--stages", "100/400ms,400/400ms"),
        *thresholds(
            *(f"messages{{stage=1,{first}}}==20", f"messages{{{second},stage=2}}==80"),
            *(f"messages{{{first}}}==100", f"bytes_per_second{{stage=2,{second}}}>1GB"),
        ),
    )
    assert code == 99
    assert [one.passed for one in result.thresholds] == [True, True, True, False]
    assert [(one.stage, one.target) for one in result.thresholds] == [
        *((1, first), (2, second), (None, first), (2, second))
    ]
    assert result.reasons == [
        f"bytes_per_second{{stage=2,{second}}}>1GB was crossed: {result.thresholds[3].measured}"
    ]
    # Half of the bytes of the stage, whose last reply may have come after its end.
    assert 0 < (result.thresholds[3].value or 0) <= 80 * 64 / 0.4


@pytest.mark.slow
def test_a_threshold_on_a_stage_tolerates_no_errors(start_server: StartServer) -> None:
    url = start_server("--fault", "reset@10%").url
    arguments = ("run", url, "-c", "2", "-n", "200", "--threshold")
    code, result = loaded(*arguments, "errors{stage=1}<50%")
    assert (code, result.verdict, result.thresholds[0].passed) == (1, "failed", True)
    code, _ = loaded(*arguments, "errors<50%")
    assert code == 0


@pytest.mark.slow
def test_a_threshold_on_a_stage_aborts_within_it(start_server: StartServer) -> None:
    """Not in the stage before, and not before its figures are significant."""
    code, result = loaded(
        *("run", start_server().url, "--stages", "2/500ms,3/1h"),
        *("--abort-on", "p50{stage=2}>1us", "--abort-on", "messages_per_second{stage=2}<1"),
    )
    assert (code, result.verdict) == (99, "crossed")
    assert result.reasons[0].startswith("--abort-on p50{stage=2}>1us: ")
    assert result.reasons[0].endswith("; the test was stopped")
    first, second = result.stages
    assert 0.5 <= first.seconds < 60
    assert 1 <= second.seconds < 3600


@pytest.mark.slow
def test_a_threshold_on_a_stage_that_was_not_reached_is_not_kept() -> None:
    code, result = loaded(
        *("stress", "-c", "2", "-c", "3", "-d", "1500ms", "--abort-on", "p50{stage=1}>1us"),
        *thresholds("errors{stage=2}<1", "p50{stage=2}<1h"),
    )
    assert (code, result.verdict) == (99, "crossed")
    assert len(result.stages) == 1
    unreached = [one for one in result.thresholds if one.stage == 2]
    assert [(one.value, one.passed) for one in unreached] == [(None, False)] * 2
    assert [one.measured for one in unreached] == ["nothing was measured"] * 2
