"""Repeats of a test, and the figures of each second."""

from __future__ import annotations

import pytest

from support.processes import LOAD, StartServer, loaded, run


@pytest.mark.slow
def test_repeats_are_kept_apart_and_add_up(start_server: StartServer) -> None:
    server = start_server("--admin", "127.0.0.1:0")
    code, result = loaded(
        *("run", server.url, "-c", "4", "-n", "400", "--repeat", "3"),
        *("--reconcile", server.admin),
    )
    assert (code, result.passed) == (0, True)
    assert [[stage.messages for stage in one.stages] for one in result.repeats] == [[400]] * 3
    assert [[stage.connections_opened for stage in one.stages] for one in result.repeats] == [
        [4]
    ] * 3
    (stage,) = result.stages
    assert stage.messages == result.totals.messages == 1200
    assert stage.latency_us.response.count == 1200
    assert stage.connections_opened == 12
    assert result.reconciliation is not None
    assert result.reconciliation.balanced
    assert result.reconciliation.server["connections_accepted"] == 12
    assert sum(one.messages for one in result.series) == 1200
    assert sorted({one.repeat for one in result.series}) == [1, 2, 3]
    seconds = [one.second for one in result.series]
    assert seconds == sorted(set(seconds))
    assert result.spread.connections == 12
    assert result.spread.percentiles == [100] * 101


@pytest.mark.slow
def test_stages_with_their_own_connections_are_repeated() -> None:
    code, result = loaded("stress", "-c", "2", "-c", "3", "-d", "150ms", "--repeat", "2")
    assert (code, result.passed) == (0, True)
    names = ["2 connections", "3 connections"]
    assert [stage.name for stage in result.stages] == names
    assert [[stage.name for stage in one.stages] for one in result.repeats] == [names] * 2
    for number, stage in enumerate(result.stages):
        several = [one.stages[number] for one in result.repeats]
        assert stage.messages == sum(one.messages for one in several)
        assert stage.seconds == pytest.approx(sum(one.seconds for one in several))
    assert [(one.repeat, one.stage) for one in result.series] == [
        (repeat, name) for repeat in (1, 2) for name in names
    ]


@pytest.mark.slow
def test_a_single_run_has_no_repeats(start_server: StartServer) -> None:
    _, result = loaded("run", start_server().url, "-c", "2", "-n", "10")
    assert result.repeats == []
    assert {one.repeat for one in result.series} == {1}


@pytest.mark.slow
def test_each_repeat_is_printed_on_one_line(start_server: StartServer) -> None:
    ended = run([*LOAD, "run", start_server().url, "-c", "2", "-n", "10", "--repeat", "2"])
    text = ended.stdout.decode()
    assert text.index("repeat 1  ") < text.index("repeat 2  ") < text.index("PASSED")
    assert "; 10 messages; 2 times" in text


@pytest.mark.slow
def test_each_second_has_figures(start_server: StartServer) -> None:
    code, result = loaded(
        *("run", start_server().url, "--rate", "--stages", "100/1s,200/1s", "-c", "5")
    )
    assert (code, len(result.series)) == (0, 2)
    for second, (one, rate) in enumerate(zip(result.series, (100, 200), strict=True)):
        assert (one.second, one.repeat, one.connections) == (second, 1, 5)
        assert one.stage == f"{rate} msg/s on 5 connections"
        assert 0 < one.p50_us <= one.p90_us <= one.p99_us <= one.p99_9_us <= one.max_us
        assert one.errors == {}
    assert sum(one.messages for one in result.series) == 300
    assert sum(one.bytes_sent for one in result.series) == 300 * 64
    assert sum(one.bytes_received for one in result.series) == 300 * 64


@pytest.mark.slow
def test_connections_rise_and_fall_with_the_stages(start_server: StartServer) -> None:
    """A busy machine may notice the end of each stage's first second late."""
    code, result = loaded(
        *("run", start_server().url, "--stages", "2/2s,20/2s,5/2s", "--payload-size", "1")
    )
    assert (code, [one.connections for one in result.series[::2]]) == (0, [2, 20, 5])


@pytest.mark.slow
def test_a_second_without_a_reply_is_in_the_series(start_server: StartServer) -> None:
    """The target answers at once or after two seconds, and not in between."""
    url = start_server("--fault", "stall=2s@20%").url
    code, result = loaded("run", url, "-c", "1", "-n", "5", "--timeout", "10s")
    assert code == 0
    assert [one.second for one in result.series] == list(range(len(result.series)))
    silent = [one for one in result.series if not one.messages]
    assert silent
    assert all((one.p50_us, one.max_us, one.connections) == (0, 0, 1) for one in silent)


def test_errors_are_in_the_second_in_which_they_happened(start_server: StartServer) -> None:
    url = start_server("--fault", "reset@2%").url
    _, result = loaded("run", url, "-c", "3", "-n", "1000")
    assert sum(one.errors.get("reset", 0) for one in result.series) == result.totals.errors["reset"]
