"""Comparisons of capacities: which is higher, and by how much."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from echo_load.errors import IncomparableError
from echo_load.results.compare import compare
from echo_load.results.result import Result
from support.capacities import CAPACITY
from support.processes import LOAD, StartServer, loaded, run


@pytest.fixture
def result(start_server: StartServer) -> Result:
    _, result = loaded("run", start_server().url, "-c", "2", "-r", "100", "-n", "20")
    return result


def capacity_of(result: Result, rate: float | None, failed_at: float | None, **more: Any) -> Result:
    """The result of a search that found a capacity."""
    found = msgspec.structs.replace(CAPACITY, rate=rate, failed_at=failed_at, **more)
    plan = replace(result.plan, rate=rate or 10.0, thresholds=("p99<5ms",))
    return msgspec.structs.replace(result, command="capacity", capacity=found, plan=plan)


@pytest.mark.parametrize(
    ("other", "verdict", "change", "low", "high"),
    [
        ((1200, 1250), "better", 0.2, 1200 / 1050 - 1, 0.25),
        ((1050, 1100), "better", 0.05, 0.0, 0.1),
        ((1020, 1080), "too noisy", 0.02, 1020 / 1050 - 1, 0.08),
        ((800, 840), "worse", -0.2, 800 / 1050 - 1, -0.16),
        ((1000, 1040), "no difference", 0.0, 1000 / 1050 - 1, 0.04),
    ],
)
def test_intervals_that_do_not_overlap_are_different(
    result: Result,
    other: tuple[float, float],
    verdict: str,
    change: float,
    low: float,
    high: float,
) -> None:
    compared = compare(capacity_of(result, 1000, 1050), capacity_of(result, *other), margin=0.05)
    (one,) = compared.changes
    assert (compared.verdict, one.verdict, one.figure, one.unit) == (
        *(verdict, verdict),
        *("capacity", "per second"),
    )
    assert one.change == pytest.approx(change)
    assert one.low == pytest.approx(low)
    assert one.high == pytest.approx(high)
    assert not any("plans differ" in note for note in compared.notes)


def test_a_lower_bound_is_only_that(result: Result) -> None:
    known = capacity_of(result, 1000, 1050)
    at_least = capacity_of(result, 1200, 1250, bound="generator", why="it was late")
    (change,) = compare(known, at_least).changes
    assert (change.verdict, change.high) == ("better", None)
    compared = compare(at_least, known)
    (change,) = compared.changes
    assert (change.verdict, change.low) == ("worse", None)
    assert any("is a lower bound: at least 1,200 msg/s" in note for note in compared.notes)
    (change,) = compare(at_least, at_least).changes
    assert (change.verdict, change.low, change.high) == ("too noisy", None, None)


def test_different_questions_are_not_compared(result: Result) -> None:
    one = capacity_of(result, 1000, 1050)
    others = {
        "has no capacity to compare: no answer": capacity_of(result, None, 10),
        "that in connections": capacity_of(result, 1000, 1050, asked="connections"),
        "the capacity for p99<5ms and b.json that for p50<1ms": msgspec.structs.replace(
            one, plan=replace(one.plan, thresholds=("p50<1ms",))
        ),
    }
    for said, other in others.items():
        with pytest.raises(IncomparableError, match=said):
            compare(one, other, names=("a.json", "b.json"))


def test_the_command_says_which_is_higher_and_by_how_much(result: Result, tmp_path: Path) -> None:
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, (rate, failed) in zip(paths, ((1000, 1050), (800, 840)), strict=True):
        path.write_bytes(capacity_of(result, rate, failed).to_json())
    process = run([*LOAD, "compare", *map(str, paths), "--fail-on", "worse"])
    said = process.stdout.decode()
    assert process.returncode == 99, process.stderr
    (row,) = (line for line in said.splitlines() if "capacity" in line)
    assert "1,000/s" in row
    assert "800/s" in row
    assert "-20.0 %" in row
    assert "- worse" in row
    changes = json.loads(run([*LOAD, "compare", *map(str, paths), "--json"]).stdout)[0]["changes"]
    assert [(one["figure"], one["verdict"]) for one in changes] == [("capacity", "worse")]
