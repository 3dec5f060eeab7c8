"""What is known of a target after a search for its capacity."""

from __future__ import annotations

import msgspec
import pytest

from echo_load.results.capacity import Bound
from support.capacities import CAPACITY

UNTESTED = "the target could not be tested: the generator was the limit"
TOO_LOW = "--at-least 5,000 msg/s was not reached"
UNTRIED = "--at-least 5,000 msg/s could not be tested: the generator was the limit"


@pytest.mark.parametrize(
    ("bound", "rate", "at_least", "shortfall", "is_undecided"),
    [
        ("slo", 4230.0, None, None, False),
        ("slo", None, None, None, False),
        ("slo", 4230.0, 4230.0, None, False),
        ("slo", 4230.0, 5000.0, TOO_LOW, False),
        ("slo", None, 5000.0, TOO_LOW, False),
        ("generator", 4230.0, None, None, False),
        ("generator", None, None, UNTESTED, True),
        ("generator", 4230.0, 4230.0, None, False),
        ("generator", 4230.0, 5000.0, UNTRIED, True),
        ("generator", None, 5000.0, UNTRIED, True),
    ],
)
def test_a_generator_at_its_limit_says_nothing_of_a_target_beyond_it(
    bound: Bound,
    rate: float | None,
    at_least: float | None,
    shortfall: str | None,
    *,
    is_undecided: bool,
) -> None:
    found = msgspec.structs.replace(CAPACITY, bound=bound, rate=rate, at_least=at_least)
    assert (found.shortfall, found.is_undecided) == (shortfall, is_undecided)
