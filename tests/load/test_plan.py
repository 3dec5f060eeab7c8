from __future__ import annotations

import os
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo_core.errors import InvalidValueError
from echo_load.plan import Plan, StagePlan, processes_for, shares


@given(st.integers(1, 10_000), st.integers(1, 64))
def test_shares_are_even_and_number_every_connection(connections: int, processes: int) -> None:
    parts = shares(connections, processes)
    assert list(chain(*parts)) == list(range(1, connections + 1))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1


def test_processes_by_cores_and_by_descriptors() -> None:
    half = max(1, (os.cpu_count() or 1) // 2)
    assert processes_for(100, 20_000) == half
    assert processes_for(100_000, 1_064) == max(half, 100)


@pytest.mark.parametrize(
    ("connections", "duration"), [(0, 1.0), (1_000_001, 1.0), (1, 0.0), (1, float("inf"))]
)
def test_stages_that_are_none(connections: int, duration: float) -> None:
    with pytest.raises(InvalidValueError):
        StagePlan(connections=connections, duration=duration)


def test_plans_that_are_none() -> None:
    with pytest.raises(InvalidValueError):
        Plan(stages=())
    with pytest.raises(InvalidValueError):
        Plan(stages=(StagePlan(connections=1, duration=1.0),), processes=0)
