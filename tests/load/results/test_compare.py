"""Comparisons of results: verdicts, and how often these are wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from rich.console import Console

from echo_load.errors import IncomparableError, InvalidValueError
from echo_load.report.comparison import ComparisonTable
from echo_load.results.compare import Samples, compare, compare_figures
from echo_load.results.comparison import Change, Comparison, Unit
from echo_load.results.result import Repeat, Result, load_result
from support.processes import LOAD, StartServer, run

Noise = np.ndarray[Any, np.dtype[np.float64]]

REPEATS = 5
TRIALS = 400
# Figures of `echo-load run -c 100 -d 3s --repeat 40` on an otherwise idle machine with two cores,
# relative to their medians; one row per repeat.
FIGURES = ("messages", "response p50", "response p99", "response p99.9", "connect p50")
REAL_NOISE = np.array(
    json.loads((Path(__file__).parent / "real_noise.json").read_text(encoding="utf-8"))
)
# Without the repeats during which another program used a fifth of the machine.
QUIET_NOISE = np.delete(REAL_NOISE, range(28, 37), axis=0)


def trial(noise: Noise, random: np.random.Generator, *, faster: float = 1.0) -> list[Change]:
    """Compare repeats that are drawn from real ones, after making the second side faster.

    A repeat is drawn with all of its figures, because these vary together.
    """
    drawn = noise[random.integers(len(noise), size=(2, REPEATS))]
    drawn[1, :, 0] *= faster
    drawn[1, :, 1:4] /= faster
    figures = [
        Samples("stage", name, "us", name == "messages", *drawn[:, :, number].tolist())
        for number, name in enumerate(FIGURES)
    ]
    return compare_figures(
        [*figures, Samples("stage", "failed", "share", False, [0.0] * 5, [0.0] * 5)]
    )


@pytest.mark.parametrize("noise", [QUIET_NOISE, REAL_NOISE], ids=["quiet", "disturbed"])
def test_equal_results_are_rarely_called_different(noise: Noise) -> None:
    random = np.random.default_rng(862)
    wrong = sum(
        any(change.verdict in {"better", "worse"} for change in trial(noise, random))
        for _ in range(TRIALS)
    )
    assert wrong <= 0.05 * TRIALS


@pytest.mark.parametrize(("faster", "verdict"), [(1.1, "better"), (1 / 1.1, "worse")])
def test_a_change_of_ten_percent_is_found(faster: float, verdict: str) -> None:
    random = np.random.default_rng(862)
    trials = [trial(QUIET_NOISE, random, faster=faster) for _ in range(TRIALS)]
    for number in (0, 1):
        found = sum(changes[number].verdict == verdict for changes in trials)
        assert found >= 0.90 * TRIALS


def test_a_disturbance_is_noise_and_not_a_change() -> None:
    """A change of 10 % is too noisy if some repeats of both sides were disturbed."""
    random = np.random.default_rng(862)
    trials = [trial(REAL_NOISE, random, faster=1.1)[0] for _ in range(TRIALS)]
    assert all(change.verdict != "worse" for change in trials)
    unclear = [change for change in trials if change.verdict == "too noisy"]
    assert len(unclear) > TRIALS / 2
    assert all((change.repeats_to_tell or 0) > REPEATS for change in unclear)


def one(
    baseline: list[float],
    other: list[float],
    *,
    unit: Unit = "us",
    more_is_better: bool = False,
) -> Change:
    return compare_figures([Samples("stage", "p99", unit, more_is_better, baseline, other)])[0]


STEADY = [100.0, 101.0, 99.0, 100.5, 99.5]


def test_a_change_well_within_the_margin_is_no_difference() -> None:
    change = one(STEADY, [value * 1.01 for value in STEADY])
    assert change.verdict == "no difference"
    assert change.change == pytest.approx(0.01)
    assert change.low is not None
    assert change.high is not None
    assert -0.05 < change.low < 0.01 < change.high < 0.05
    assert change.repeats_to_tell is None


def test_better_and_worse_depend_on_the_figure() -> None:
    more = [value * 1.2 for value in STEADY]
    assert one(STEADY, more).verdict == "worse"
    assert one(more, STEADY).verdict == "better"
    assert one(STEADY, more, more_is_better=True).verdict == "better"
    assert one(STEADY, more).change == pytest.approx(0.2)
    assert one(STEADY, more).baseline == pytest.approx(100.0, rel=1e-3)


def test_a_change_within_a_wider_margin_is_no_difference() -> None:
    samples = [Samples("stage", "p99", "us", False, STEADY, [value * 1.1 for value in STEADY])]
    assert compare_figures(samples)[0].verdict == "worse"
    assert compare_figures(samples, 0.2)[0].verdict == "no difference"


@pytest.mark.slow
def test_noisy_results_estimate_how_many_repeats_would_suffice() -> None:
    noisy = [60.0, 150.0, 100.0, 90.0, 120.0]
    change = one(noisy, list(reversed(noisy)))
    assert change.verdict == "too noisy"
    assert change.repeats_to_tell is not None
    assert change.repeats_to_tell > 100
    # So many repeats with the same noise are enough.
    copies = change.repeats_to_tell // 5 + 1
    assert one(noisy * copies, noisy[::-1] * copies).verdict == "no difference"


@pytest.mark.parametrize("repeats", [1, 2, 3])
def test_too_few_repeats_never_show_a_difference(repeats: int) -> None:
    change = one(STEADY[:repeats], [value * 2 for value in STEADY[:repeats]])
    assert (change.verdict, change.repeats_to_tell) == ("too few repeats", 5)
    assert (change.low, change.high) == (None, None)
    assert change.change == pytest.approx(1.0)


def test_four_repeats_can_show_a_difference() -> None:
    assert one(STEADY[:4], [value * 2 for value in STEADY[:4]]).verdict == "worse"


def test_sides_may_have_different_numbers_of_repeats() -> None:
    assert one(STEADY, [value * 1.3 for value in STEADY * 4]).verdict == "worse"


def test_figures_that_do_not_vary_are_equal_or_different() -> None:
    assert one([5.0] * 5, [5.0] * 5).verdict == "no difference"
    assert one([5.0] * 5, [6.0] * 5).verdict == "worse"


def test_a_figure_that_differs_exactly_does_not_make_others_fail() -> None:
    """An open loop whose messages are twice as large has exactly twice the bandwidth."""
    exact = Samples("s", "bandwidth", "bytes per second", True, [2e4] * 4, [4e4] * 4)
    noisy = Samples("s", "response p50", "us", False, [195, 49742, 182, 183], [227, 239, 215, 2910])
    clear = Samples("s", "response p99", "us", False, [100, 101, 102, 103], [200, 201, 202, 203])
    found = compare_figures([exact, noisy, clear])
    assert [change.verdict for change in found] == ["better", "too noisy", "worse"]
    assert all(change.low is not None for change in found)


def test_a_bound_that_is_too_large_to_be_calculated_is_none() -> None:
    wild = Samples("s", "p99", "us", False, [1e-300, 1e300] * 2, [1e300, 1e-280] * 2)
    (change,) = compare_figures([wild])
    assert (change.verdict, change.low, change.high) == ("too noisy", -1, None)


def test_failures_are_compared_by_their_share() -> None:
    none, some = [0.0] * 5, [0.01, 0.012, 0.009, 0.011, 0.01]
    assert one(none, none, unit="share").verdict == "no difference"
    change = one(none, some, unit="share")
    assert (change.verdict, change.baseline) == ("worse", 0.0)
    assert change.change == pytest.approx(0.0104)
    assert one(some, none, unit="share").verdict == "better"


def test_random_assignments_are_reproducible() -> None:
    random = np.random.default_rng(1)
    sides = [random.normal(100, 5, 30).tolist(), random.normal(103, 5, 30).tolist()]
    assert one(*sides) == one(*sides)


@pytest.fixture
def result(start_server: StartServer, tmp_path: Path) -> Result:
    """Return the result of a real test with five repeats."""
    path = tmp_path / "real.json"
    ended = run(
        [*LOAD, "run", start_server().url, "-c", "2", "-n", "20", "--repeat", "5", "-o", str(path)]
    )
    assert ended.returncode == 0, ended.stderr.decode()
    return load_result(path)


def slower(result: Result, times: float) -> Result:
    """Return a result with all response times multiplied."""
    repeats = []
    for repeat in result.repeats:
        stages = []
        for stage in repeat.stages:
            response = stage.latency_us.response
            longer = {name: getattr(response, name) * times for name in ("p50", "p99", "p99_9")}
            latencies = msgspec.structs.replace(
                stage.latency_us, response=msgspec.structs.replace(response, **longer)
            )
            stages.append(msgspec.structs.replace(stage, latency_us=latencies))
        repeats.append(Repeat(started_at=repeat.started_at, stages=stages))
    return msgspec.structs.replace(result, repeats=repeats)


@pytest.mark.slow
def test_results_are_compared_with_the_first(result: Result, tmp_path: Path) -> None:
    paths = []
    for name, times in (("a", 1.0), ("same", 1.0), ("slow", 1000.0)):
        path = tmp_path / f"{name}.json"
        path.write_bytes(slower(result, times).to_json())
        paths.append(str(path))
    ended = run([*LOAD, "compare", *paths, "--json"])
    assert ended.returncode == 0, ended.stderr.decode()
    same, slow = msgspec.json.decode(ended.stdout, type=list[Comparison])
    assert (same.baseline, same.other, same.repeats) == ("a", "same", (5, 5))
    assert same.verdict in {"no difference", "too noisy"}
    assert slow.verdict == "worse"
    verdicts = {change.figure: change.verdict for change in slow.changes}
    # On a busy machine, the highest percentiles of short runs vary too much to tell.
    assert verdicts["response p50"] == "worse"
    assert {verdicts[f"response {name}"] for name in ("p99", "p99.9")} <= {"worse", "too noisy"}
    assert verdicts["failed"] == "no difference"
    text = run([*LOAD, "compare", *paths]).stdout.decode()
    assert "WORSE  slow against a: " in text
    assert "- worse" in text
    assert run([*LOAD, "compare", *paths, "--fail-on", "worse"]).returncode == 99
    assert run([*LOAD, "compare", *paths[:2], "--fail-on", "worse"]).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_table_fits_its_terminal_and_loses_nothing(result: Result, width: int) -> None:
    few = msgspec.structs.replace(result, repeats=result.repeats[:3])
    comparison = compare(few, few, names=("before", "after"))
    assert comparison.verdict == "too few repeats"
    written = StringIO()
    Console(file=written, width=width).print(ComparisonTable(comparison))
    lines = written.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    head = " ".join(" ".join(lines[:3]).split())
    for words in ("figure", "before (3x)", "after (3x)", "change", "95% interval", "verdict"):
        assert words in head
    assert "…" not in written.getvalue()


@pytest.mark.slow
def test_caveats_of_a_comparison_are_noted(result: Result) -> None:
    other = msgspec.structs.replace(
        result,
        plan=replace(result.plan, pipeline=4, targets=("h:1",)),
        machine=msgspec.structs.replace(result.machine, cores=64),
        generator=msgspec.structs.replace(result.generator, bound=True),
        passed=False,
        reasons=["it rained"],
    )
    base = msgspec.structs.replace(
        result, generator=msgspec.structs.replace(result.generator, bound=False)
    )
    assert compare(base, base).notes == []
    assert compare(base, other).notes == [
        "the plans differ in pipeline (1 and 4)",
        "they were measured on different machines, or with different versions",
        "other is generator-bound: it shows the generator, not the target",
        "other did not pass: it rained",
    ]


@pytest.mark.slow
def test_an_interrupted_repeat_does_not_count(result: Result) -> None:
    other = msgspec.structs.replace(result, verdict="interrupted", passed=False, reasons=["it was"])
    assert compare(result, other).repeats == (5, 4)
    only = msgspec.structs.replace(other, repeats=[])
    with pytest.raises(IncomparableError, match="interrupted, so it is incomplete"):
        compare(result, only)


@pytest.mark.slow
def test_different_tests_are_not_compared(result: Result, tmp_path: Path) -> None:
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    paths[0].write_bytes(result.to_json())
    paths[1].write_bytes(msgspec.structs.replace(result, command="hold").to_json())
    ended = run([*LOAD, "compare", *map(str, paths)])
    assert ended.returncode == 2
    assert ended.stderr.decode().splitlines() == [
        "echo-load: error: a is of echo-load run and b of echo-load hold: compare results of the "
        "same command"
    ]
    two = msgspec.structs.replace(result, stages=result.stages * 2)
    with pytest.raises(IncomparableError, match="compare results with the same stages"):
        compare(result, two)


def test_only_results_are_compared() -> None:
    anything: Any = "before.json"
    with pytest.raises(InvalidValueError, match="`baseline` cannot be of type str; give a Result"):
        compare(anything, anything)
