"""Source addresses of connections, and the number of generators that can open them.

Shortages are detected before a test, not in the middle of it.
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
from echo_core.limits import SPARE_DESCRIPTORS
from echo_load.plan.plan import Plan

# Source addresses used at most: checking each one takes a call of bind(2).
_MOST_SOURCES = 4096


def source_addresses(plan: Plan) -> tuple[str, ...]:
    """Return the addresses of a plan's `source_ips`, at most one per connection.

    Raises:
        InvalidValueError: one is neither an address nor a network, or no address of this machine.
    """
    # A dict keeps the order and drops duplicates: an address given twice has no more ports.
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
    """Return the number of generators that share the connections of a plan.

    The default is half of the cores, which leaves the others to a target on the same machine, or
    more if the descriptor limit demands it.

    Args:
        plan: the test.
        descriptors: number of descriptors that one process may open.

    Raises:
        InvalidValueError: the plan's `processes` are fewer than the descriptor limit demands.
    """
    needed = math.ceil(plan.most_connections / max(1, descriptors - SPARE_DESCRIPTORS))
    if plan.processes is None:
        return min(plan.most_connections, max(1, (os.cpu_count() or 1) // 2, needed))
    if plan.processes < needed:
        raise InvalidValueError(
            f"{plan.most_connections} connections in {plan.processes} process"
            f"{'es' if plan.processes > 1 else ''}: each may open {descriptors} descriptors "
            f"(ulimit -n); raise that limit, or use `processes` {needed} or more"
        )
    return min(plan.processes, plan.most_connections)


def _hosts(text: str) -> Iterator[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Return the addresses of a network, or a single address.

    Raises:
        ValueError: the text is neither.
    """
    if "%" in text:
        # Only an address can have a zone, and `ip_network` would reject it.
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
