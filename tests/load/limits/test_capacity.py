"""`echo-load capacity` on targets whose limit is known."""

from __future__ import annotations

import random
import signal
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import msgspec
import pytest

from echo_core.errors import InvalidValueError
from echo_load.limits.capacity_plan import CapacityPlan, seconds_for
from echo_load.plan.plan import Plan
from echo_load.plan.thresholds import Threshold
from echo_load.report.html import render
from echo_load.report.markdown import markdown
from echo_load.report.summaries import as_text, summary_of
from echo_load.results.capacity import CapacityResult, written_level
from echo_load.results.result import Result
from support.known_delays import KnownDelays
from support.misbehaving import Service, answers_http
from support.processes import DEADLINE, LOAD, StartServer, environment, program, run
from support.queueing import rate_that_keeps, share_answered_within

pytestmark = pytest.mark.timeout(900)

QUICK = ("-c", "20", "-d", "1s", "--warmup", "100ms", "--repeat", "1", "--precision", "20%")


def test_a_step_is_long_enough_for_its_percentile() -> None:
    assert seconds_for([Threshold.parse("p99<5ms")], 100) == 10
    assert seconds_for([Threshold.parse("p99.9<5ms")], 1000) == pytest.approx(10)
    assert seconds_for([Threshold.parse("errors<0.1%")], 1000) == pytest.approx(10)
    assert seconds_for([Threshold.parse("p99<5ms")], 100_000) == 4
    assert seconds_for([Threshold.parse("p99.99<5ms")], 10) == 30


@pytest.mark.parametrize(
    ("thresholds", "rate", "note"),
    [
        ("p99<5ms", 100, None),
        ("p99.9<5ms", 1000, None),
        (
            "p99.9<5ms",
            333,
            "a step of 30s at this level has 9,990 messages, but p99.9 needs 10,000",
        ),
        ("p99.9<5ms", 100, "has 3,000 messages, but p99.9 needs 10,000; give --duration 1m40s"),
        ("service.p99<5ms", 10, "has 300 messages, but service.p99 needs 1,000; give --duration 1"),
        (("p99<5ms", "errors<0.1%"), 100, "but errors needs 10,000; give --duration 1m40s"),
        # Neither depends on the number of messages.
        (("errors==0", "max<5ms", "mean<5ms", "connect.p99<5ms"), 1, None),
    ],
)
def test_too_few_messages_for_a_percentile_are_noted(
    thresholds: str | tuple[str, ...], rate: float, note: str | None
) -> None:
    found = CapacityPlan(plan=Plan(thresholds=thresholds)).shortage(rate)
    assert (found is None) == (note is None)
    assert (note or "") in (found or "")


def test_too_short_a_duration_is_noted() -> None:
    slo = Plan(thresholds="p99<5ms")
    assert CapacityPlan(plan=slo, duration=2).shortage(500) is None
    assert CapacityPlan(plan=slo, duration=1).shortage(500) == (
        "a step of 1s at this level has 500 messages, but p99 needs 1,000; give --duration 2s"
    )
    held = CapacityPlan(plan=slo, cycle=5).shortage(100)
    assert held is not None
    assert held.endswith("has 200 messages, but p99 needs 1,000; give --duration 50s")


def searched(*arguments: str) -> tuple[int, Result, CapacityResult]:
    """Exit code, result and answer of a search, which takes longer than other commands."""
    process = subprocess.run(
        [*LOAD, "capacity", *arguments, "--json"],
        capture_output=True,
        check=False,
        env=environment(),
    )
    result = msgspec.json.decode(process.stdout, type=Result)
    assert result.exit_code == process.returncode
    assert result.capacity is not None
    return process.returncode, result, result.capacity


def test_the_theory_is_that_of_one_worker_with_a_fixed_service_time() -> None:
    rate, service = 150.0, 0.005
    random_ = random.Random(1)
    free = now = 0.0
    times = []
    for _ in range(200_000):
        now += random_.expovariate(rate)
        free = max(free, now) + service
        times.append(free - now)
    for seconds in (0.006, 0.012, 0.02, 0.05):
        simulated = sum(one <= seconds for one in times) / len(times)
        assert simulated == pytest.approx(
            share_answered_within(seconds, rate, service), abs=0.01
        ), seconds
    assert share_answered_within(0.05, 154.7, 0.005) == pytest.approx(0.99, abs=1e-4)


@pytest.mark.slow
def test_the_rate_at_which_a_single_worker_becomes_too_slow_is_found() -> None:
    """The machine limits the precision, which tests/benchmarks/capacity_accuracy.py measures."""
    service, limit = 0.005, 0.05
    with KnownDelays(service=service) as target:
        code, _, capacity = searched(
            *(target.target, "--slo", "p99<50ms", "--arrivals", "poisson", "--start", "60"),
            *("--precision", "20%", "-d", "4s", "--repeat", "1"),
        )
    assert capacity.rate == pytest.approx(rate_that_keeps(0.99, limit, service), rel=0.4)
    assert capacity.bound in {"slo", "generator"}
    assert code == 0
    assert capacity.rate is not None
    assert capacity.failed_at is not None
    assert capacity.rate < capacity.failed_at


@pytest.mark.slow
def test_the_rate_above_which_a_target_sheds_is_found() -> None:
    with KnownDelays(sheds_above=600) as target:
        code, _, capacity = searched(
            *(target.target, "--slo", "errors==0", "--start", "400", "-c", "20", "--repeat", "1")
        )
    assert capacity.rate == pytest.approx(600, rel=0.1)
    assert (code, capacity.bound) == (0, "refused")


@pytest.mark.slow
@pytest.mark.parametrize(("required", "code"), [(60, 0), (61, 99)])
def test_what_is_required_is_tried_itself(
    start_server: StartServer, required: int, code: int
) -> None:
    server = start_server("--max-connections", "60")
    found, result, capacity = searched(
        *(server.url, "--connections-limit", "--cycle", "300ms", "--start", "40"),
        *("--repeat", "1", "--precision", "20%", "--at-least", str(required)),
    )
    assert (found, capacity.bound, capacity.confirmed) == (code, "refused", True)
    if code:
        assert (capacity.failed_at, result.verdict) == (61, "crossed")
        assert result.reasons[-1] == "--at-least 61 connections was not reached"
    else:
        assert (capacity.connections, result.reasons) == (60, [])


@pytest.mark.slow
def test_a_generator_that_cannot_try_what_is_required_does_not_blame_the_target(
    start_server: StartServer, tmp_path: Path
) -> None:
    xml = tmp_path / "junit.xml"
    ended = run(
        [
            *(program("prlimit"), "--nofile=400:400", *LOAD, "capacity", start_server().url),
            *("--connections-limit", "--cycle", "300ms", "--repeat", "1", "--processes", "1"),
            *("--precision", "50%", "--at-least", "1000", "--json", "--junit", str(xml)),
        ]
    )
    result = msgspec.json.decode(ended.stdout, type=Result)
    assert (ended.returncode, result.verdict, result.passed) == (1, "failed", False)
    assert result.capacity is not None
    assert (result.capacity.bound, result.capacity.is_undecided) == ("generator", True)
    reason = "--at-least 1,000 connections could not be tested: the generator was the limit"
    assert result.reasons == [reason]
    (suite,) = ET.fromstring(xml.read_bytes())
    assert (suite.get("errors"), suite.get("failures")) == ("1", "0")
    (error,) = suite.iter("error")
    assert error.get("message") == reason


def test_rates_from_python_may_be_bandwidths() -> None:
    plan = Plan(payload_size="64-136", thresholds="p99<5ms")
    found = CapacityPlan(plan=plan, start="10kB/s", highest="160kbit/s", lowest=50)
    assert (found.start, found.highest, found.lowest) == (100, 200, 50)
    step = found.step(150, confirm=False)
    assert (step.rate, step.bytes_per_message) == (150, 100)
    # The size by which the plan's own rate was converted is that of the search.
    found = CapacityPlan(plan=Plan(rate="20kB/s", message="x" * 10), at_least="1kB/s")
    assert (found.plan.rate, found.at_least) == (2000, 100)
    # Without a bandwidth, the answer is none.
    assert CapacityPlan(plan=plan, start="1k").plan.bytes_per_message is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"start": "10Mb/s"}, "`start`: '10Mb/s' may mean bits or bytes"),
        ({"at_least": "nonsense"}, "`at_least`: 'nonsense' is not a rate; write it as in 100, 10k"),
        ({"start": "1kB/s", "cycle": 1}, "`start` cannot be in bytes per second: it is a number"),
        ({"plan": Plan(hello=True), "start": "1kB/s"}, "messages of a known mean size"),
        ({"start": "100kB/s", "highest": "1kB/s"}, "`start` 100 kB/s (1,562.5 msg/s) is above"),
        ({"start": 0}, "`start` 0.0 is not above 0"),
    ],
)
def test_wrong_levels_from_python_are_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        CapacityPlan(**{"plan": Plan(), **given})
    assert said in str(caught.value)


@pytest.mark.slow
def test_a_search_may_be_given_bandwidths(start_server: StartServer) -> None:
    code, result, capacity = searched(
        *(start_server().url, *QUICK, "--slo", "p50<9s", "--payload-size", "100"),
        *("--start", "10kB/s", "--highest", "160kbit/s", "--at-least", "20kB/s"),
    )
    assert (code, capacity.rate, capacity.at_least) == (0, 200, 200)
    assert capacity.answer.startswith("at least 20 kB/s (160 kbit/s), 200 msg/s, the highest that")
    assert result.stages[0].name.startswith("20 kB/s (160 kbit/s), 200 msg/s on ")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_search_says_what_is_known(
    start_server: StartServer, number: signal.Signals
) -> None:
    with subprocess.Popen(
        [
            *LOAD,
            "capacity",
            start_server().url,
            *QUICK,
            "--slo",
            "p99<9s",
            "--start",
            "20",
            "--json",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        # Lines of progress may come before it.
        assert any(line.startswith(b"search ") for line in process.stderr)
        process.send_signal(number)
        result = msgspec.json.decode(process.stdout.read(), type=Result)
        code = process.wait(DEADLINE)
    capacity = result.capacity
    assert (code, result.verdict) == (130, "interrupted")
    assert result.reasons[0] == "interrupted before the end"
    assert capacity is not None
    assert (capacity.bound, capacity.confirmed) == ("interrupted", False)
    assert capacity.steps[0].kept
    assert capacity.rate is not None
    assert capacity.rate >= 20
    assert capacity.answer == f"interrupted: at least {capacity.written(capacity.rate)}"


@pytest.mark.slow
def test_what_does_not_echo_is_refused_with_what_came() -> None:
    with Service(answers_http) as service:
        process = run([*LOAD, "capacity", service.target, "--json"])
    assert (process.returncode, process.stdout) == (1, b"")
    (line,) = process.stderr.decode().splitlines()
    assert "2 replies were not what was sent (corrupt 1, foreign 1)" in line
    assert "received HTTP/1.1 400 Bad Request" in line


@pytest.mark.slow
def test_an_slo_that_always_holds_gives_the_highest_rate(start_server: StartServer) -> None:
    code, _, capacity = searched(
        *(start_server().url, *QUICK, "--slo", "p50<9s", "--start", "100"),
        *("--highest", "200"),
    )
    assert (code, capacity.rate, capacity.bound) == (0, 200, "range")
    assert "raise --highest" in capacity.answer
    assert capacity.note is None


@pytest.mark.slow
def test_reports_say_that_steps_had_too_few_messages(start_server: StartServer) -> None:
    _, result, capacity = searched(
        *(start_server().url, *QUICK, "--slo", "p99.9<9s", "--start", "100"),
        *("--highest", "200"),
    )
    note = (
        "a step of 1s at this level has 200 messages, but p99.9 needs 10,000; give --duration 50s"
    )
    assert capacity.note == note
    assert note in as_text(summary_of(result))
    # It is escaped.
    assert "has 200 messages" in markdown([result], [""]).decode()
    assert note in render([result], [""]).decode()


@pytest.mark.slow
def test_an_slo_that_never_holds_is_said(start_server: StartServer) -> None:
    code, _, capacity = searched(
        *(start_server().url, *QUICK, "--slo", "p50<1us", "--start", "100"),
        *("--lowest", "50"),
    )
    # Another program may disturb the generator.
    assert (code, capacity.rate) == (1 if capacity.bound == "generator" else 99, None)
    assert "no answer: not kept even at 50 msg/s" in capacity.answer


@pytest.mark.slow
def test_the_number_of_connections_that_a_server_admits_is_found(start_server: StartServer) -> None:
    server = start_server("--max-connections", "60")
    code, _, capacity = searched(
        *(server.url, "--connections-limit", "--cycle", "300ms", "--start", "40"),
        *("--repeat", "1"),
    )
    assert capacity.connections is not None
    assert 57 <= capacity.connections <= 60
    assert (code, capacity.bound) == (0, "refused")


def test_a_start_below_the_default_lowest_rate_is_the_lowest() -> None:
    plan = CapacityPlan(plan=Plan(), start=5)
    assert (plan.within.start, plan.within.lowest) == (5, 5)


def test_what_a_search_stops_on_is_not_for_its_plan_to_say() -> None:
    with pytest.raises(InvalidValueError, match=r"^`abort_on` cannot be given in the plan"):
        CapacityPlan(plan=Plan(abort_on="p99>1s"))
    # Its own conditions are in the plans of its steps only.
    assert CapacityPlan(plan=Plan()).step(1000, confirm=False).abort_on


def test_levels_that_differ_are_written_differently() -> None:
    within = CapacityPlan(plan=Plan(), start=10, highest=100_000, precision=0.001).within
    levels = [within.lowest]
    while levels[-1] < within.highest:
        levels.append(within.rounded(levels[-1] * 1.001 + 0.01))
    assert len({written_level(level) for level in levels}) == len(levels) > 1000


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (["127.0.0.1:9"], "tcp://127.0.0.1:9: ", 1),
        (["--slo", "p99<5"], "--slo: 'p99<5': '5' has no unit", 2),
        (["--precision", "0"], "--precision: ", 2),
        (["--precision", "0%"], "--precision: '0%' is not a precision from 0.1% to 50%", 2),
        (["--lowest", "5k", "--highest", "1k"], "--lowest 5,000 is above --highest 1,000", 2),
        (
            ["--start", "5MB/s", "--highest", "1MB/s"],
            "--start 5 MB/s (78,125 msg/s) is above --highest 1 MB/s (15,625 msg/s); lower",
            2,
        ),
        (["--start", "5", "--lowest", "7"], "--start 5 is below --lowest 7; raise --start", 2),
        (["--highest", "200M"], "--highest 200,000,000 is above 100,000,000, the most that", 2),
        (["--connections-limit", "--at-least", "3M"], "--at-least 3,000,000 is above 2,000,000", 2),
        (["--start", "1Mb/s"], "--start: '1Mb/s' may mean bits or bytes; write 1Mbit/s or", 2),
        (["--at-least", "0"], "--at-least: '0' is not a rate above 0", 2),
        (
            ["--highest", "200", "--at-least", "5k"],
            "--at-least 5,000 is above --highest 200; raise --highest",
            2,
        ),
        (
            ["--highest", "160kbit/s", "--at-least", "1MB/s"],
            "--at-least 1 MB/s (15,625 msg/s) is above --highest 20 kB/s (312.5 msg/s); raise",
            2,
        ),
        (
            ["--connections-limit", "--at-least", "10.5"],
            "--at-least 10.5 is not a whole number of connections",
            2,
        ),
        (
            ["--connections-limit", "--at-least", "1MB/s"],
            "--connections-limit finds a number of connections, which is not given in bytes",
            2,
        ),
        (["--slo", "p99{stage=2}<1s"], "there is no stage 2; the test has 1 stage", 2),
    ],
)
def test_bad_input_gives_one_line(arguments: list[str], said: str, code: int) -> None:
    ended = run([*LOAD, "capacity", *arguments])
    lines = ended.stderr.decode().splitlines()
    assert (ended.returncode, len(lines), ended.stdout) == (code, 1, b""), lines
    assert said in lines[0]
