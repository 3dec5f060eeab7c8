"""Rates in bytes or bits per second, and their conversion to messages per second."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from echo_core.errors import InvalidValueError
from echo_load.plan.bandwidth import Bandwidth, mean_size, parse_load
from echo_load.plan.plan import Plan
from echo_load.plan.stages import StagePlan, parse_stages


@pytest.mark.parametrize(
    ("text", "load"),
    [
        ("10k", 10_000.0),
        ("2.5k/s", 2500.0),
        # Not bytes: messages may have prefixes, too.
        ("1M", 1e6),
        ("1MB", Bandwidth(1e6)),
        ("100MB/s", Bandwidth(100e6)),
        ("800Mbit/s", Bandwidth(100e6)),
    ],
)
def test_a_rate_is_of_messages_or_of_bytes(text: str, load: float | Bandwidth) -> None:
    assert parse_load(text) == load


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fast", "'fast' is not a rate; write it as in 100, 10k, 100MB/s or 800Mbit/s"),
        ("1G", "'1G' is not a rate; write it as in"),
        ("100XB/s", "'100XB/s' is not a bandwidth; write it as in 100MB/s"),
        ("100Mb/s", "'100Mb/s' may mean bits or bytes; write 100Mbit/s or 100MB/s"),
        ("0", "'0' is not a rate above 0; write it as in 10k or 100MB/s"),
        ("0MB/s", "'0MB/s' is not a rate above 0; write it as in 10k or 100MB/s"),
    ],
)
def test_invalid_rates_are_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        parse_load(text)
    assert str(caught.value).startswith(said)


def test_the_mean_size_is_that_of_what_is_sent(tmp_path: Path) -> None:
    file = tmp_path / "payload"
    file.write_bytes(b"x" * 321)
    assert mean_size() == 64
    assert mean_size(payload_size=(100, 301)) == 200.5
    assert mean_size(payload_file=str(file)) == 321
    assert mean_size(message="hällo") == 6


def test_the_mean_of_a_range_is_that_of_its_messages() -> None:
    payload = Plan(payload_size=(10, 1000)).payload(7)
    sizes = [
        len(payload.message(connection, sequence))
        for connection in range(10)
        for sequence in range(1000)
    ]
    assert sum(sizes) / len(sizes) == pytest.approx(mean_size(payload_size=(10, 1000)), rel=0.01)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"payload_file": "/nowhere"}, "`payload_file` /nowhere: No such file or directory"),
        ({"payload_file": "/dev/null"}, "`payload_file` /dev/null is empty or not a regular file"),
        ({"payload_file": "/"}, "`payload_file` / is empty or not a regular file"),
        ({"message": ""}, "`message` is empty; it needs at least one byte"),
        ({"hello": True}, "a rate in bytes needs messages of a known mean size"),
        ({"payload_size": (0, 0)}, "`payload_size` 0 to 0 is not a size or a range of sizes of 1"),
        ({"payload_size": (-1, 1)}, "`payload_size` -1 to 1 is not a size or a range of sizes"),
        ({"payload_size": (3, 2)}, "`payload_size` 3 to 2 is not a size or a range of sizes"),
    ],
)
def test_messages_without_a_mean_size_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        mean_size(**fields)
    assert str(caught.value).startswith(said)


def test_a_pipe_is_not_read_to_find_out_its_size(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(InvalidValueError, match="not a regular file"):
        mean_size(payload_file=str(pipe))


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        ("0-100MB/10s", [(0, 100_000, 10)]),
        ("100MB/s/30s", [(100_000, 100_000, 30)]),
        ("8Mbit-0/1s,1MB/s-2MB/s/5s", [(1000, 0, 1), (1000, 2000, 5)]),
        # Each stage for itself.
        ("5/1s,1MB/1s", [(5, 5, 1), (1000, 1000, 1)]),
    ],
)
def test_stages_may_be_bandwidths(text: str, levels: list[tuple[float, float, float]]) -> None:
    assert parse_stages(text, rates=True, bytes_per_message=1000) == tuple(
        StagePlan(first=first, last=last, duration=duration) for first, last, duration in levels
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("10-100MB/10s", "'10' has no unit, but the other level has one; write it as in 10MB-100"),
        ("10MB-100/10s", "'100' has no unit, but the other level has one"),
        ("1Mb/1s", "'1Mb' may mean bits or bytes; write 1Mbit/s or 1MB/s"),
        ("xB/1s", "'xB' is not a bandwidth; write it as in 100MB/s"),
        ("0B/1s", "all stages are 0; at least one must be above 0"),
        ("1MB/s", "'s' is not a duration"),
        ("1MB", "is not a stage; write it as in 100/30s"),
    ],
)
def test_invalid_bandwidths_of_stages_are_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        parse_stages(text, rates=True, bytes_per_message=1000)
    assert said in str(caught.value)


def test_bandwidths_of_stages_need_the_size_of_the_messages() -> None:
    with pytest.raises(InvalidValueError, match="which needs `bytes_per_message` to be converted"):
        parse_stages("1MB/1s", rates=True)
    # Without `rates` they would be numbers of connections.
    with pytest.raises(InvalidValueError, match="'1MB' is not a count"):
        parse_stages("1MB/1s", rates=False, bytes_per_message=64)


RAMP = parse_stages("0-64kB/10s,64kB-128kB/5s", rates=True, bytes_per_message=64)


@pytest.mark.parametrize(
    ("fields", "names", "description"),
    [
        (
            {"rate": 1000.0, "connections": 4},
            ["64 kB/s (512 kbit/s), 1,000 msg/s on 4 connections"],
            "64 kB/s (512 kbit/s), 1,000 msg/s on 4 connections, 10s; constant arrivals",
        ),
        (
            {"stages": RAMP, "staged_rate": True, "connections": 1},
            [
                "0 to 64 kB/s (512 kbit/s), 0 to 1,000 msg/s on 1 connection",
                "64 kB/s (512 kbit/s) to 128 kB/s (1.02 Mbit/s), 1,000 to 2,000 msg/s on 1 "
                "connection",
            ],
            "0 to 64 kB/s (512 kbit/s), 0 to 1,000 msg/s, then 64 kB/s (512 kbit/s) "
            "to 128 kB/s (1.02 Mbit/s), 1,000 to 2,000 msg/s on 1 connection, 15s; constant "
            "arrivals",
        ),
    ],
)
def test_a_plan_by_bandwidth_is_described_in_both(
    fields: dict[str, Any], names: list[str], description: str
) -> None:
    plan = Plan(bytes_per_message=64, **fields)
    assert [plan.stage_name(stage) for stage in plan.run_stages] == names
    assert plan.description == description


def test_the_rate_of_a_plan_by_bandwidth_stays_in_messages() -> None:
    plan = Plan(rate=1000.0, bytes_per_message=64, warmup=1.0)
    assert plan.rate_name == "64 kB/s (512 kbit/s), 1,000 msg/s"
    assert plan.run_stages[0].last == plan.rate == 1000
    assert plan.warm_up(plan.run_stages[0]).bytes_per_message == 64
    assert Plan(rate=1000.0).rate_name == "1,000 msg/s"
    assert Plan().rate_name == ""


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "`bytes_per_message` 64 has no effect without `rate`; omit it"),
        (
            {"rate": 5.0, "payload_size": (64, 128)},
            "`bytes_per_message` 64 is not the mean size of the messages, 96",
        ),
        ({"rate": 5.0, "message": "five!"}, "is not the mean size of the messages, 5"),
        ({"rate": 5.0, "hello": True}, "a rate in bytes needs messages of a known mean size"),
        ({"rate": 5.0, "bytes_per_message": 0.0}, "`bytes_per_message` 0.0 is not above 0"),
    ],
)
def test_a_mean_size_that_contradicts_the_plan_is_refused(
    fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidValueError) as caught:
        Plan(**{"bytes_per_message": 64.0, **fields})
    assert said in str(caught.value)


def test_the_plan_of_an_old_result_needs_no_payload_file() -> None:
    plan = Plan(rate=5.0, bytes_per_message=321.0, payload_file="/nowhere")
    assert plan.rate_name == "1.6 kB/s (12.8 kbit/s), 5 msg/s"
