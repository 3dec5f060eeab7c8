from __future__ import annotations

import math
import os
import socket
from pathlib import Path

import pytest

from echo_client.addresses import Address
from echo_core.errors import InvalidValueError
from echo_load.plan import Plan
from echo_load.sources import SPARE_DESCRIPTORS, check_ports, processes_for, source_addresses

FIRST, LAST = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
PORTS = LAST - FIRST + 1
TARGET = [Address(socket.AF_INET, ("127.0.0.1", 7))]
OTHER = [Address(socket.AF_INET, ("127.0.0.1", 8))]
TARGET_6 = [Address(socket.AF_INET6, ("::1", 7, 0, 0))]
UNIX = [Address(socket.AF_UNIX, "/run/echo.sock")]


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
def test_addresses_and_networks(
    source_ips: tuple[str, ...], connections: int, found: tuple[str, ...]
) -> None:
    assert source_addresses(Plan(source_ips=source_ips, connections=connections)) == found


def test_no_more_addresses_are_tried_than_help() -> None:
    plan = Plan(source_ips=("127.0.0.0/8", "127.1.0.0/16"), connections=1_000_000)
    assert len(set(source_addresses(plan))) == 4096


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("", "'' is no address and no network"),
        ("localhost", "'localhost' is no address and no network"),
        ("127.0.0.256", "'127.0.0.256' is no address and no network"),
        ("127.0.0.1/33", "'127.0.0.1/33' is no address and no network"),
        ("127.0.1.1/24", r"has host bits set\); write it as in 127\.0\.1\.1 or 127\.0\.1\.0/24"),
        # RFC 5737 and RFC 3849: no machine has these.
        ("192.0.2.1", r"192\.0\.2\.1 is no address of this machine \(.+\)"),
        ("127.0.0.0/30,", "is no address and no network"),
        ("2001:db8::1", "2001:db8::1 is no address of this machine"),
    ],
)
def test_what_is_no_source(source: str, said: str) -> None:
    with pytest.raises(InvalidValueError, match=f"^--source-ip: .*{said}"):
        source_addresses(Plan(source_ips=("127.0.0.1", source)))


def test_a_port_serves_one_connection_from_a_source_to_a_target() -> None:
    sources = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    check_ports(Plan(connections=PORTS), [TARGET], [])
    check_ports(Plan(connections=PORTS), [TARGET], sources[:1])
    check_ports(Plan(connections=3 * PORTS), [TARGET], sources)
    check_ports(Plan(connections=2 * PORTS), [TARGET, OTHER], [])
    check_ports(Plan(connections=6 * PORTS), [TARGET, OTHER], sources)
    check_ports(Plan(connections=2_000_000), [UNIX], sources)
    for connections, targets, number, said in (
        (PORTS + 1, [TARGET], 0, f"1 source address has {PORTS} "),
        (3 * PORTS + 1, [TARGET], 3, f"3 source addresses have {PORTS} "),
        (2 * PORTS + 2, [UNIX, OTHER], 1, f"1 source address has {PORTS} "),
    ):
        needed = math.ceil(connections / len(targets))
        with pytest.raises(InvalidValueError) as caught:
            check_ports(Plan(connections=connections), targets, sources[:number])
        assert f"{needed} connections to {targets[-1][0].endpoint} need" in str(caught.value)
        assert said in str(caught.value)
        assert f"{FIRST} to {LAST}); add source addresses, as in --source-ip" in str(caught.value)


@pytest.mark.parametrize(
    ("target", "source"), [(TARGET, "::1"), (TARGET_6, "127.0.0.1")], ids=["4 to 6", "6 to 4"]
)
def test_a_source_of_the_other_ip_version(target: list[Address], source: str) -> None:
    with pytest.raises(InvalidValueError, match="other IP version") as caught:
        check_ports(Plan(), [UNIX, target], [source])
    assert f"--source-ip: {source} cannot reach {target[0].endpoint}" in str(caught.value)


def test_generators_by_cores_and_by_descriptors() -> None:
    half = max(1, (os.cpu_count() or 1) // 2)
    assert processes_for(Plan(connections=10_000), 20_000) == half
    assert processes_for(Plan(connections=1), 20_000) == 1
    assert processes_for(Plan(connections=100_000), 1000 + SPARE_DESCRIPTORS) == max(half, 100)
    assert processes_for(Plan(connections=100_001), 1000 + SPARE_DESCRIPTORS) == max(half, 101)
    assert processes_for(Plan(connections=500, processes=8), 1000) == 8
    assert processes_for(Plan(connections=5, processes=8), 1000) == 5
    # With no descriptors to speak of, too.
    assert processes_for(Plan(connections=5), SPARE_DESCRIPTORS) == 5
    assert processes_for(Plan(connections=5), SPARE_DESCRIPTORS - 1) == 5


def test_fewer_generators_than_the_descriptors_demand() -> None:
    with pytest.raises(InvalidValueError) as caught:
        processes_for(Plan(connections=2001, processes=2), 1000 + SPARE_DESCRIPTORS)
    assert str(caught.value) == (
        "2001 connections in 2 processes: each may open 1064 descriptors (ulimit -n); "
        "raise that limit, or use --processes 3"
    )


def test_a_target_that_is_named_twice_has_no_more_ports() -> None:
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    target = (Address(socket.AF_INET, ("127.0.0.1", 7)),)
    plan = Plan(targets=("127.0.0.1:7",) * 3, connections=last - first + 2)
    with pytest.raises(InvalidValueError, match="add source addresses"):
        check_ports(plan, (target,) * 3, ())
