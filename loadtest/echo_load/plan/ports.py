"""A check before a test that there are enough local ports for its connections."""

from __future__ import annotations

import ipaddress
import math
import socket
from collections import Counter
from collections.abc import Sequence

from echo_client.addresses import Address
from echo_core.errors import InvalidValueError
from echo_core.limits import local_ports, time_wait_seconds
from echo_core.units import format_duration
from echo_load.plan.plan import Plan

# A low estimate of the time to start generators and to connect.
_STARTING_SECONDS = 1.0


def check_ports(plan: Plan, targets: Sequence[Sequence[Address]], sources: Sequence[str]) -> None:
    """Check that there are local ports for all connections of a plan.

    From each source address to each target, a local port serves one connection; after that
    connection is closed, the port stays taken for a while (TIME_WAIT, RFC 9293, section 3.6).

    Args:
        plan: the test.
        targets: addresses of each target, of which the first one is used.
        sources: local addresses to connect from; empty for the kernel's choice.

    Raises:
        InvalidValueError: there are too few ports, or a source address is of another IP version
            than its target.
    """
    first, last = local_ports()
    ports = (last - first + 1) * max(1, len(sources))
    have = (
        f"{max(1, len(sources))} source address{'es have' if len(sources) > 1 else ' has'} "
        f"{last - first + 1} (net.ipv4.ip_local_port_range is {first} to {last}); add source "
        "addresses, as in `source_ips` 127.0.1.0/24"
    )
    to_target = Counter(
        targets[number % len(targets)][0] for number in range(plan.most_connections)
    )
    for address, connections in to_target.items():
        if address.family == socket.AF_UNIX:
            continue
        _check_versions(address, sources)
        if connections > ports:
            raise InvalidValueError(
                f"{connections} connections to {address.endpoint} need as many local ports, but "
                f"{have}"
            )
        seconds = _time_wait_seconds(address)
        taken = int(_most_taken(plan, seconds) * connections / plan.most_connections)
        if taken > ports:
            raise InvalidValueError(
                f"connections to {address.endpoint} take {taken} local ports, including those of "
                f"connections closed in the last {format_duration(seconds)} (TIME_WAIT), but {have}"
            )


def _check_versions(address: Address, sources: Sequence[str]) -> None:
    for source in sources:
        if (":" in source) != (address.family == socket.AF_INET6):
            raise InvalidValueError(
                f"`source_ips`: {source} cannot reach {address.endpoint}: the IP versions differ"
            )


def _time_wait_seconds(address: Address) -> float:
    """Return the seconds for which a port stays taken after its connection; 0 over UDP."""
    if address.transport == "udp":
        return 0.0
    host = str(address.sockaddr[0]).partition("%")[0]
    return time_wait_seconds(loopback=ipaddress.ip_address(host).is_loopback)


def _most_taken(plan: Plan, seconds: float) -> float:
    """Return a lower bound of the number of ports that a test takes at once.

    Args:
        plan: the test.
        seconds: seconds for which a port stays taken after its connection.
    """
    churned = plan.most_connections + _churned_within(plan, seconds)
    return max(churned, _most_taken_by_parts(plan, seconds))


def _churned_within(plan: Plan, seconds: float) -> float:
    """Return the largest number of connections that `churn` closes within this many seconds.

    It is 0 in a closed loop, where the number of messages depends on the target.
    """
    if plan.churn is None or not plan.open_loop:
        return 0.0
    messages = max(
        (stage.first + stage.last) / 2 * min(seconds, stage.duration or math.inf)
        for stage in plan.run_stages
    )
    return min(messages, plan.messages or math.inf) / plan.churn


def _most_taken_by_parts(plan: Plan, seconds: float) -> int:
    """Return the largest number of connections of a part and of the parts shortly before it.

    Args:
        plan: the test.
        seconds: how long before the part a previous one may have ended.
    """
    parts = _parts(plan)
    most = 0
    for number, (beginning, _) in enumerate(parts):
        ended, since = 0, _STARTING_SECONDS
        for connections, lasting in reversed(parts[:number]):
            if since >= seconds:
                break
            ended += connections
            since += lasting + _STARTING_SECONDS
        most = max(most, beginning + ended)
    return most


def _parts(plan: Plan) -> list[tuple[int, float]]:
    """Return the connections and the duration of each part of a test, warm-ups included.

    A part has connections of its own. Durations are in seconds.
    """
    parts: list[tuple[int, float]] = []
    for stage in plan.run_stages if plan.reopen else plan.run_stages[:1]:
        if plan.warmup:
            parts.append((plan.warm_up(stage).most_connections, plan.warmup))
        if plan.reopen:
            parts.append((math.ceil(stage.highest), stage.duration or math.inf))
        else:
            parts.append((plan.most_connections, plan.seconds or math.inf))
    return parts * plan.repeat
