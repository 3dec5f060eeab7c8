"""The rows of several targets on the live screen."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence

import pytest
from rich.cells import cell_len
from rich.console import Console

from echo_load.engines.recorder import Snapshot
from echo_load.plan.plan import Plan
from echo_load.report.live_targets import LiveTargets
from echo_load.runner.generator import Update
from echo_load.runner.tally import Tally
from support.updates import snapshot

# Each of these targets answers in its first second; the first one is the slowest.
TARGETS = [f"tcp://10.0.0.{number}:50007" for number in range(1, 13)]


def tally_of(targets: Sequence[str] = TARGETS) -> Tally:
    plan = Plan(targets=targets, rate=1200, duration=30, connections=24)
    tally = Tally(plan, plan.run_stages, 1, 1, len(targets))
    tally.begin(0)
    return tally


def answered(
    milliseconds: int, second: int = 0, errors: Mapping[str, int] | None = None
) -> Snapshot:
    """Return the snapshot of a target that answered 100 messages in a second."""
    return snapshot(
        second + 1.0,
        [[milliseconds * 1000] * 100],
        first=second,
        opened=2,
        bytes_sent=64,
        errors=Counter(errors or {}),
    )


def silent(second: int = 0, **errors: int) -> Snapshot:
    """Return the snapshot of a target that has not answered."""
    return snapshot(
        second + 1.0, opened=2, closed=2 if errors else 0, bytes_sent=64, errors=Counter(errors)
    )


def lines(targets: LiveTargets, width: int = 100, height: int = 30) -> list[str]:
    """Return the lines that are shown on a terminal of this size."""
    rows = targets.rows(width, height)
    assert rows is not None
    console = Console(file=io.StringIO(), width=width)
    with console.capture() as capture:
        console.print(rows)
    found = [line.rstrip() for line in capture.get().splitlines()]
    assert all(len(line) <= width for line in found)
    return found


def names(targets: LiveTargets, **size: int) -> list[str]:
    return [line.split()[0] for line in lines(targets, **size)[1:] if "://" in line]


def test_a_row_has_the_figures_of_its_target() -> None:
    tally = tally_of(TARGETS[:2])
    tally.take(0, Update("running", {0: answered(3), 1: silent(reset=2, refused=1200)}))
    targets = LiveTargets(tally)
    targets.update(1.1)
    assert [line.split() for line in lines(targets)] == [
        ["target", "open", "msg/s", "p50", "p99", "errors"],
        [TARGETS[0], "2", "100", "3", "ms", "3", "ms", "0"],
        [TARGETS[1], "0", "0", "-", "-", "1,202"],
    ]


def test_a_single_target_has_no_row() -> None:
    targets = LiveTargets(tally_of(TARGETS[:1]))
    targets.update(1.1)
    assert targets.rows(100, 30) is None


def test_targets_keep_their_order_if_all_are_shown() -> None:
    tally = tally_of(TARGETS[:8])
    tally.take(0, Update("running", {number: answered(number + 1) for number in range(8)}))
    targets = LiveTargets(tally)
    targets.update(1.1)
    assert names(targets) == TARGETS[:8]
    assert len(lines(targets)) == 9


def test_of_many_targets_those_with_errors_are_first_then_the_silent_then_the_slowest() -> None:
    tally = tally_of()
    snapshots = {number: answered(20 - number) for number in range(12)}
    snapshots |= {4: answered(1, errors={"corrupt": 2}), 7: silent(), 10: silent(refused=5)}
    tally.take(0, Update("running", snapshots))
    targets = LiveTargets(tally)
    targets.update(1.1)
    slowest = [TARGETS[number] for number in (0, 1, 2, 3, 5)]
    assert names(targets) == [TARGETS[10], TARGETS[4], TARGETS[7], *slowest]
    assert lines(targets)[-1] == "and 4 more: 400 msg/s, p99 at most 14 ms, 0 errors"


def test_the_others_may_have_errors_too() -> None:
    tally = tally_of()
    tally.take(0, Update("running", {number: silent(refused=1) for number in range(12)}))
    targets = LiveTargets(tally)
    targets.update(1.1)
    assert names(targets) == TARGETS[:8]
    assert lines(targets)[-1] == "and 4 more: 0 msg/s, 4 errors"


def test_rows_change_places_only_with_a_new_second() -> None:
    tally = tally_of()
    tally.take(0, Update("running", {number: answered(20 - number) for number in range(12)}))
    targets = LiveTargets(tally)
    targets.update(1.1)
    assert names(targets) == TARGETS[:8]
    failed = answered(1, second=1, errors={"corrupt": 2})
    tally.take(0, Update("running", {11: failed, **{n: answered(2, 1) for n in range(11)}}))
    targets.update(1.9)
    assert names(targets) == TARGETS[:8]
    targets.update(2.1)
    assert names(targets)[0] == TARGETS[11]


def test_a_small_terminal_has_fewer_rows() -> None:
    tally = tally_of(TARGETS[:6])
    tally.take(0, Update("running", {number: answered(9 - number) for number in range(6)}))
    targets = LiveTargets(tally)
    targets.update(1.1)
    assert names(targets, height=24) == TARGETS[:6]
    assert names(targets, height=16) == TARGETS[:4]
    assert lines(targets, height=16)[-1].startswith("and 2 more: 200 msg/s, p99 at most 5 ms")
    assert names(targets, height=5) == TARGETS[:1]


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_long_name_is_shown_without_its_middle(width: int) -> None:
    service = "tcp://echo-{}.a-service-with-a-long-name.some-namespace.svc.cluster.local:5000{}"
    tally = tally_of([service.format(number, number) for number in range(2)])
    tally.take(0, Update("running", {number: answered(123) for number in range(2)}))
    targets = LiveTargets(tally)
    targets.update(1.1)
    shown = lines(targets, width)
    assert len(shown) == 3
    for number, line in enumerate(shown[1:]):
        name, *figures = line.split()
        assert name.startswith("tcp://")
        assert name.endswith(f":5000{number}")
        assert "…" in name
        assert figures == ["2", "100", "123", "ms", "123", "ms", "0"]
    if width >= 80:
        assert all(f"tcp://echo-{number}." in line for number, line in enumerate(shown[1:]))


def test_a_name_in_wide_characters_keeps_both_ends() -> None:
    tally = tally_of([f"unix:///run/{'日本語' * 8}-{number}.sock" for number in range(2)])
    tally.take(0, Update("running", {number: answered(123) for number in range(2)}))
    targets = LiveTargets(tally)
    targets.update(1.1)
    for width in (60, 80):
        for number, line in enumerate(lines(targets, width)[1:]):
            name, *figures = line.split()
            assert cell_len(line) <= width
            assert name.startswith("unix://")
            assert name.endswith(f"-{number}.sock" if width == 80 else ".sock")
            assert name.count("…") == 1
            assert figures == ["2", "100", "123", "ms", "123", "ms", "0"]
