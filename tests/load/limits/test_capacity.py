"""`echo-load capacity` on targets whose limit is known."""

from __future__ import annotations

import pytest

from echo_load.limits.capacity import seconds_for
from echo_load.plan.thresholds import Threshold
from support.known_delays import KnownDelays
from support.processes import LOAD, StartServer, loaded, run

QUICK = ("-c", "20", "-d", "1s", "--warmup", "100ms", "--repeat", "1", "--precision", "20%")


def test_a_step_is_long_enough_for_its_percentile() -> None:
    assert seconds_for([Threshold.parse("p99<5ms")], 100) == 10
    assert seconds_for([Threshold.parse("p99.9<5ms")], 1000) == pytest.approx(10)
    assert seconds_for([Threshold.parse("errors<0.1%")], 1000) == pytest.approx(10)
    assert seconds_for([Threshold.parse("p99<5ms")], 100_000) == 4
    assert seconds_for([Threshold.parse("p99.99<5ms")], 10) == 30


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_rate_above_which_a_target_sheds_is_found() -> None:
    with KnownDelays(sheds_above=600) as target:
        code, result = loaded(
            *("capacity", target.target, "--slo", "errors==0", "--start", "400"),
            *("-c", "20", "-d", "2s", "--warmup", "100ms", "--repeat", "1", "--at-least", "5k"),
        )
    capacity = result.capacity
    assert capacity is not None
    assert capacity.rate is not None
    assert 480 <= capacity.rate <= 660
    assert capacity.bound == "refused"
    assert (code, result.verdict) == (99, "crossed")
    assert "--at-least 5,000 msg/s was not reached" in result.reasons[-1]


@pytest.mark.slow
def test_an_slo_that_always_holds_gives_the_highest_rate(start_server: StartServer) -> None:
    code, result = loaded(
        *("capacity", start_server().url, *QUICK, "--slo", "p50<9s", "--start", "100"),
        *("--highest", "200"),
    )
    assert result.capacity is not None
    assert (code, result.capacity.rate, result.capacity.bound) == (0, 200, "range")
    assert "raise --highest" in result.capacity.answer


@pytest.mark.slow
def test_an_slo_that_never_holds_is_said(start_server: StartServer) -> None:
    code, result = loaded(
        *("capacity", start_server().url, *QUICK, "--slo", "p50<1us", "--start", "100"),
        *("--lowest", "50"),
    )
    assert result.capacity is not None
    assert (code, result.capacity.rate) == (99, None)
    assert "no answer: not kept even at 50 msg/s" in result.capacity.answer


@pytest.mark.slow
def test_the_number_of_connections_that_a_server_admits_is_found(start_server: StartServer) -> None:
    server = start_server("--max-connections", "60")
    code, result = loaded(
        *("capacity", server.url, "--connections-limit", "--cycle", "300ms", "--start", "40"),
        *("--repeat", "1"),
    )
    capacity = result.capacity
    assert capacity is not None
    assert capacity.connections is not None
    assert 57 <= capacity.connections <= 60
    assert (code, capacity.bound) == (0, "refused")


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (["127.0.0.1:9"], "tcp://127.0.0.1:9: ", 1),
        (["--slo", "p99<5"], "--slo: 'p99<5': '5' has no unit", 2),
        (["--precision", "0"], "--precision: ", 2),
        (["--precision", "0%"], "--precision: '0%' is not a precision from 0.1% to 50%", 2),
        (["--lowest", "5k", "--highest", "1k"], "--lowest 5,000 is above --highest 1,000", 2),
    ],
)
def test_bad_input_gives_one_line(arguments: list[str], said: str, code: int) -> None:
    ended = run([*LOAD, "capacity", *arguments])
    lines = ended.stderr.decode().splitlines()
    assert (ended.returncode, len(lines), ended.stdout) == (code, 1, b""), lines
    assert said in lines[0]
