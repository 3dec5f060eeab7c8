from __future__ import annotations

import math
import socket
from pathlib import Path
from typing import Any

import pytest

from echo_client.addresses import Address
from echo_core.errors import InvalidValueError
from echo_core.limits import time_wait_seconds
from echo_load.plan.plan import Plan
from echo_load.plan.ports import check_ports
from echo_load.plan.stages import parse_stages

FIRST, LAST = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
PORTS = LAST - FIRST + 1
TARGET = [Address(socket.AF_INET, ("127.0.0.1", 7))]
OTHER = [Address(socket.AF_INET, ("127.0.0.1", 8))]
TARGET_6 = [Address(socket.AF_INET6, ("::1", 7, 0, 0))]
UNIX = [Address(socket.AF_UNIX, "/run/echo.sock", "unix")]
# Not on this machine (RFC 5737).
FAR = [Address(socket.AF_INET, ("192.0.2.1", 7))]
FAR_DATAGRAMS = [Address(socket.AF_INET, ("192.0.2.1", 7), "udp")]
REUSED = Path("/proc/sys/net/ipv4/tcp_tw_reuse").read_text().strip() == "1"
CLOSED = pytest.mark.skipif(REUSED, reason="this machine reuses ports after a second")


def test_a_port_serves_one_connection_from_a_source_to_a_target() -> None:
    sources = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    check_ports(Plan(connections=PORTS), [TARGET], [])
    check_ports(Plan(connections=PORTS), [TARGET], sources[:1])
    check_ports(Plan(connections=3 * PORTS), [TARGET], sources)
    check_ports(Plan(connections=2 * PORTS), [TARGET, OTHER], [])
    check_ports(Plan(connections=6 * PORTS), [TARGET, OTHER], sources)
    check_ports(Plan(connections=2_000_000), [UNIX], sources)
    for connections, targets, number, expected in (
        (PORTS + 1, [TARGET], 0, f"1 source address has {PORTS} "),
        (3 * PORTS + 1, [TARGET], 3, f"3 source addresses have {PORTS} "),
        (2 * PORTS + 2, [UNIX, OTHER], 1, f"1 source address has {PORTS} "),
    ):
        needed = math.ceil(connections / len(targets))
        with pytest.raises(InvalidValueError) as caught:
            check_ports(Plan(connections=connections), targets, sources[:number])
        assert f"{needed} connections to {targets[-1][0].endpoint} need" in str(caught.value)
        assert expected in str(caught.value)
        assert f"{FIRST} to {LAST}); add source addresses, as in `source_ips`" in str(caught.value)


@pytest.mark.parametrize(
    ("target", "source"), [(TARGET, "::1"), (TARGET_6, "127.0.0.1")], ids=["4 to 6", "6 to 4"]
)
def test_a_source_of_the_other_ip_version_is_refused(target: list[Address], source: str) -> None:
    with pytest.raises(InvalidValueError, match="IP versions differ") as caught:
        check_ports(Plan(), [UNIX, target], [source])
    assert f"`source_ips`: {source} cannot reach {target[0].endpoint}" in str(caught.value)


def test_naming_a_target_twice_gives_it_no_more_ports() -> None:
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    target = (Address(socket.AF_INET, ("127.0.0.1", 7)),)
    plan = Plan(targets=("127.0.0.1:7",) * 3, connections=last - first + 2)
    with pytest.raises(InvalidValueError, match="add source addresses"):
        check_ports(plan, (target,) * 3, ())


def test_a_port_stays_taken_for_a_minute_and_on_the_loopback_for_a_second() -> None:
    """The expected times are the defaults of the kernel."""
    reuse = int(Path("/proc/sys/net/ipv4/tcp_tw_reuse").read_text())
    assert time_wait_seconds(loopback=False) == (1.0 if reuse == 1 else 60.0)
    assert time_wait_seconds(loopback=True) == (60.0 if reuse == 0 else 1.0)


# With 10 open connections, this many others may be closed in a minute.
LEFT = PORTS - 10
A_MINUTE = LEFT / 60


@CLOSED
@pytest.mark.parametrize(
    "fields",
    [
        {"rate": 5.01 * A_MINUTE, "churn": 5, "duration": 600.0},
        {"rate": 10.02 * A_MINUTE, "churn": 5, "duration": 30.0},
        {"stages": parse_stages(f"0-{10.02 * A_MINUTE}/1m", rates=True), "churn": 5},
        {"rate": 1e6, "messages": 5 * LEFT + 10, "churn": 5},
    ],
)
def test_an_open_loop_whose_churn_exhausts_the_ports_is_refused(fields: dict[str, Any]) -> None:
    staged = "stages" in fields
    with pytest.raises(InvalidValueError, match="TIME_WAIT") as caught:
        check_ports(Plan(connections=10, staged_rate=staged, **fields), [FAR], [])
    assert "connections to tcp://192.0.2.1:7 take " in str(caught.value)
    assert "closed in the last 1m (TIME_WAIT)" in str(caught.value)
    # Twice the addresses are enough, and so are half the messages; datagrams do not keep ports.
    check_ports(Plan(connections=10, staged_rate=staged, **fields), [FAR], ["192.0.2.2"] * 2)
    check_ports(Plan(connections=10, staged_rate=staged, **fields | {"churn": 10}), [FAR], [])
    check_ports(Plan(connections=10, staged_rate=staged, **fields), [FAR_DATAGRAMS], [])


def test_the_churn_of_a_closed_loop_is_not_limited() -> None:
    check_ports(Plan(connections=10, churn=1, duration=600.0), [FAR], [])


@CLOSED
def test_connections_of_earlier_repeats_keep_their_ports() -> None:
    half = PORTS // 2 + 1
    for fields in ({"repeat": 2}, {"warmup": 1.0}):
        with pytest.raises(InvalidValueError, match=f"take {2 * half} local ports"):
            check_ports(Plan(connections=half, duration=1.0, **fields), [FAR], [])
    stages = parse_stages(f"{half}/5s,{half}/5s", rates=False)
    with pytest.raises(InvalidValueError, match=f"take {2 * half} local ports"):
        check_ports(Plan(stages=stages, reopen=True), [FAR], [])
    # Many connections, and then a few; or the other way round.
    for connections in (f"{PORTS - 10}/5s,10/5s", f"10/5s,{PORTS - 10}/5s"):
        check_ports(Plan(stages=parse_stages(connections, rates=False), reopen=True), [FAR], [])
    # Repeats, with a minute between the first and the third.
    third = PORTS // 3
    check_ports(Plan(connections=third, duration=30.0, repeat=9), [FAR], [])
    # On the loopback, ports are free again when the next repeat begins.
    if time_wait_seconds(loopback=True) == 1.0:
        check_ports(Plan(connections=half, duration=1.0, repeat=5), [TARGET], [])
