"""Source addresses of connections, and the processes that have descriptors for them.

What would run out in the middle of a test is found out before it.
"""

from __future__ import annotations

import ipaddress
import math
import os
import socket
from collections.abc import Iterator
from itertools import islice

from echo_client.addresses import source_sockaddr
from echo_core.errors import InvalidValueError
from echo_load.plan.plan import Plan

# Descriptors that a generator needs besides its connections: standard streams, pipes, libraries.
SPARE_DESCRIPTORS = 64
# The most that are tried out before a test.
_MOST_SOURCES = 4096


def source_addresses(plan: Plan) -> tuple[str, ...]:
    """The addresses of a plan's `source_ips`, as many as it has connections for.

    Raises:
        InvalidValueError: one is no address, no network, or not one of this machine.
    """
    # Each once: twice the same has no more ports than once.
    found: dict[str, None] = {}
    for text in plan.source_ips:
        try:
            hosts = _hosts(text.strip())
        except ValueError as error:
            raise InvalidValueError(
                f"`source_ips`: {text!r} is neither an address nor a network ({error}); "
                "write it as in 127.0.1.1 or 127.0.1.0/24"
            ) from error
        most = min(_MOST_SOURCES, plan.most_connections) - len(found)
        found.update(dict.fromkeys(map(str, islice(hosts, max(0, most)))))
    for source in found:
        _check_local(source)
    return tuple(found)


def processes_for(plan: Plan, descriptors: int) -> int:
    """Return how many generators share the connections of a plan.

    By default half of the cores, so that the target has the others when it runs on the same
    machine; more where one process may not have so many descriptors.

    Args:
        plan: the test.
        descriptors: the most that one process may open.

    Raises:
        InvalidValueError: the plan asks for fewer than the descriptors demand.
    """
    needed = math.ceil(plan.most_connections / max(1, descriptors - SPARE_DESCRIPTORS))
    if plan.processes is None:
        return min(plan.most_connections, max(1, (os.cpu_count() or 1) // 2, needed))
    if plan.processes < needed:
        raise InvalidValueError(
            f"{plan.most_connections} connections in {plan.processes} process"
            f"{'es' if plan.processes > 1 else ''}: each may open {descriptors} descriptors "
            f"(ulimit -n); raise that limit, or use `processes` {needed}"
        )
    return min(plan.processes, plan.most_connections)


def _hosts(text: str) -> Iterator[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """The addresses of a network, or the one address; ValueError says that it is neither."""
    if "%" in text:
        # No network has a zone.
        return iter([ipaddress.ip_address(text)])
    return iter(ipaddress.ip_network(text).hosts())


def _check_local(source: str) -> None:
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind(source_sockaddr(source))
    except OSError as error:
        raise InvalidValueError(
            f"`source_ips`: {source} is not an address of this machine ({error.strerror})"
        ) from error
