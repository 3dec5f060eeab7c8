from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from echo_load.engines.share import NEVER
from echo_load.engines.timers import InstantTimer

DEADLINE = 10.0


@pytest.fixture
def timer() -> Iterator[InstantTimer]:
    with closing(InstantTimer()) as made:
        yield made


def is_ready(timer: InstantTimer, within: float = 0) -> bool:
    return bool(select.select([timer], [], [], within)[0])


def test_a_timer_that_was_not_set_is_not_ready(timer: InstantTimer) -> None:
    assert not is_ready(timer)


@pytest.mark.parametrize("instant", [0, -5, 1])
def test_the_past_is_now(timer: InstantTimer, instant: int) -> None:
    timer.set(instant)
    assert is_ready(timer, DEADLINE)


def test_it_is_ready_at_the_instant_and_not_before(timer: InstantTimer) -> None:
    instant = time.monotonic_ns() + 20_000_000
    timer.set(instant)
    assert is_ready(timer, DEADLINE)
    assert time.monotonic_ns() >= instant


def test_the_last_instant_counts(timer: InstantTimer) -> None:
    timer.set(1)
    assert is_ready(timer, DEADLINE)
    # It stays ready until it is set again, and then the last instant is forgotten.
    assert is_ready(timer)
    timer.set(NEVER)
    assert not is_ready(timer)
    timer.set(1)
    assert is_ready(timer, DEADLINE)


def test_its_descriptor_is_closed_with_it_and_is_no_childs() -> None:
    timer = InstantTimer()
    descriptor = timer.fileno()
    assert not os.get_inheritable(descriptor)
    assert not os.get_blocking(descriptor)
    timer.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
