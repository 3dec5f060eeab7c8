"""The processor time and lateness of generators in each second."""

from __future__ import annotations

from array import array
from datetime import datetime, timedelta

import pytest

from echo_load.measure.distributions import Measured
from echo_load.runner.generator_seconds import GeneratorSeconds
from echo_load.runner.selfcheck import Usage
from support.processes import StartServer, loaded

NONE = {"generator_cores": None, "late_p99_us": None, "lag_p99_us": None}


def measured(*, late_us: list[int], lag_us: list[int]) -> Measured:
    found = Measured()
    found.lateness.record(array("q", [1000 * one for one in late_us]))
    found.hub_lag.record(array("q", [1000 * one for one in lag_us]))
    return found


def test_the_cores_of_all_generators_are_added() -> None:
    seconds = GeneratorSeconds()
    for generator, used in ((0, 0.5), (1, 0.25)):
        seconds.add(0, generator, Usage(0.5, used / 2, 0.0), [])
        seconds.add(0, generator, Usage(1.0, used, 0.0), [])
        seconds.add(1, generator, Usage(1.5, used + 0.5, 0.0), [])
    assert seconds.take(0) == {**NONE, "generator_cores": 0.75}
    # Half a second with a whole core each.
    assert seconds.take(1) == {**NONE, "generator_cores": 2.0}
    assert seconds.take(2) == NONE


def test_what_was_used_before_the_start_does_not_count() -> None:
    seconds = GeneratorSeconds()
    seconds.add(None, 0, Usage(8.0, 7.0, 0.0), [])
    # The measurement begins anew with the start.
    seconds.add(0, 0, Usage(0.5, 0.1, 0.0), [])
    assert seconds.take(0) == {**NONE, "generator_cores": pytest.approx(0.2)}


def test_delays_are_those_of_their_second() -> None:
    seconds = GeneratorSeconds()
    first = [measured(late_us=[100] * 99 + [900], lag_us=[]), measured(late_us=[], lag_us=[50])]
    seconds.add(0, 0, Usage(), first)
    seconds.add(1, 0, Usage(), [measured(late_us=[7], lag_us=[])])
    found = seconds.take(0)
    assert found["late_p99_us"] == pytest.approx(100, rel=0.001)
    assert found["lag_p99_us"] == pytest.approx(50, rel=0.001)
    assert seconds.take(1)["late_p99_us"] == pytest.approx(7, rel=0.001)


@pytest.mark.slow
def test_a_result_has_the_figures_of_each_second(start_server: StartServer) -> None:
    servers = [start_server(), start_server()]
    code, result = loaded(
        *("run", *(one.url for one in servers), "-c", "4", "-r", "400", "-d", "2s"),
        *("--warmup", "500ms"),
    )
    assert code == 0
    assert len(result.series) == 2
    for one in result.series:
        assert one.generator_cores is not None
        # A process of one thread uses at most one core.
        assert 0 < one.generator_cores <= 1.05
        assert one.late_p99_us is not None
        assert one.late_p99_us > 0
        assert one.lag_p99_us is not None
    cores = [one.generator_cores or 0.0 for one in result.series]
    assert sum(cores) <= result.generator.cpu_seconds * 1.1
    for target in result.by_target:
        assert [one.generator_cores for one in target.series] == [None, None]
        assert all(one.late_p99_us for one in target.series)
    # The first second begins after the warm-up.
    assert result.series_started_at is not None
    began = datetime.fromisoformat(result.series_started_at)
    assert began - datetime.fromisoformat(result.started_at) >= timedelta(milliseconds=500)
