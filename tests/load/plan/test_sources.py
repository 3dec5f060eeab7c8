from __future__ import annotations

import os

import pytest

from echo_core.errors import InvalidValueError
from echo_core.limits import SPARE_DESCRIPTORS
from echo_load.plan.plan import Plan
from echo_load.plan.sources import processes_for, source_addresses


@pytest.mark.parametrize(
    ("source_ips", "connections", "found"),
    [
        ((), 9, ()),
        (("127.0.0.1",), 9, ("127.0.0.1",)),
        ((" 127.0.1.1 ", "127.0.0.9/32"), 9, ("127.0.1.1", "127.0.0.9")),
        (("127.0.1.0/30", "127.0.2.7"), 9, ("127.0.1.1", "127.0.1.2", "127.0.2.7")),
        (("127.0.1.0/24", "127.0.2.7"), 3, ("127.0.1.1", "127.0.1.2", "127.0.1.3")),
        (("127.0.0.0/8",), 2, ("127.0.0.1", "127.0.0.2")),
    ],
)
def test_addresses_and_networks_are_expanded(
    source_ips: tuple[str, ...], connections: int, found: tuple[str, ...]
) -> None:
    assert source_addresses(Plan(source_ips=source_ips, connections=connections)) == found


def test_no_more_addresses_are_checked_than_needed() -> None:
    plan = Plan(source_ips=("127.0.0.0/8", "127.1.0.0/16"), connections=1_000_000)
    assert len(set(source_addresses(plan))) == 4096


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("", "'' is neither an address nor a network"),
        ("localhost", "'localhost' is neither an address nor a network"),
        ("127.0.0.256", "'127.0.0.256' is neither an address nor a network"),
        ("127.0.0.1/33", "'127.0.0.1/33' is neither an address nor a network"),
        ("127.0.1.1/24", r"has host bits set\); write it as in 127\.0\.1\.1 or 127\.0\.1\.0/24"),
        # Documentation addresses that no machine has (RFC 5737 and RFC 3849).
        ("192.0.2.1", r"192\.0\.2\.1 is not an address of this machine \(.+\)"),
        ("127.0.0.0/30,", "is neither an address nor a network"),
        ("2001:db8::1", "2001:db8::1 is not an address of this machine"),
    ],
)
def test_invalid_sources_are_refused(source: str, expected: str) -> None:
    with pytest.raises(InvalidValueError, match=f"^`source_ips`: .*{expected}"):
        source_addresses(Plan(source_ips=("127.0.0.1", source)))


def test_the_number_of_generators_depends_on_cores_and_descriptors() -> None:
    half = max(1, (os.cpu_count() or 1) // 2)
    assert processes_for(Plan(connections=10_000), 20_000) == half
    assert processes_for(Plan(connections=1), 20_000) == 1
    assert processes_for(Plan(connections=100_000), 1000 + SPARE_DESCRIPTORS) == max(half, 100)
    assert processes_for(Plan(connections=100_001), 1000 + SPARE_DESCRIPTORS) == max(half, 101)
    assert processes_for(Plan(connections=500, processes=8), 1000) == 8
    assert processes_for(Plan(connections=5, processes=8), 1000) == 5
    # Even with hardly any descriptors.
    assert processes_for(Plan(connections=5), SPARE_DESCRIPTORS) == 5
    assert processes_for(Plan(connections=5), SPARE_DESCRIPTORS - 1) == 5


def test_too_few_generators_for_the_descriptor_limit_are_refused() -> None:
    with pytest.raises(InvalidValueError) as caught:
        processes_for(Plan(connections=2001, processes=2), 1000 + SPARE_DESCRIPTORS)
    assert str(caught.value) == (
        "2001 connections in 2 processes: each may open 1064 descriptors (ulimit -n); "
        "raise that limit, or use `processes` 3 or more"
    )
