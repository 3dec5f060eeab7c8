"""Network namespaces: one by itself, and a NAT between a client and a server."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import pytest

from support.processes import program


class Nat(NamedTuple):
    """Prefixes of commands on both sides of a NAT, and the server's address."""

    client: tuple[str, ...]
    server: tuple[str, ...]
    address: str


@contextmanager
def network_namespace(name: str) -> Iterator[str]:
    """Make a network namespace with a loopback interface, whose full name has the test's process.

    The test is skipped where that is not possible, or there is no iptables.
    """
    if os.geteuid() != 0:
        pytest.skip("needs root: it makes network namespaces")
    for tool in ("ip", "iptables"):
        program(tool)
    full_name = f"{name}-{os.getpid()}"
    _run("ip", "netns", "add", full_name)
    try:
        _run("ip", "-n", full_name, "link", "set", "lo", "up")
        yield full_name
    finally:
        _run("ip", "netns", "delete", full_name)


def inside(namespace: str) -> tuple[str, ...]:
    """Return the prefix of a command that runs in a namespace."""
    return ("ip", "netns", "exec", namespace)


@contextmanager
def forgetful_nat(seconds: int) -> Iterator[Nat]:
    """Run a NAT that forgets connections after some seconds of idleness, and drops what it lost."""
    with ExitStack() as stack:
        client, nat, server = (
            stack.enter_context(network_namespace(side)) for side in ("client", "nat", "server")
        )
        for number, side in enumerate((client, server), 1):
            _run(
                *("ip", "link", "add", "eth0", "netns", side, "type", "veth"),
                *("peer", "name", f"to{number}", "netns", nat),
            )
            for name, device, host in ((side, "eth0", 2), (nat, f"to{number}", 1)):
                address = f"10.77.{number}.{host}/24"
                _run("ip", "-n", name, "address", "add", address, "dev", device)
                _run("ip", "-n", name, "link", "set", device, "up")
        _run("ip", "-n", client, "route", "add", "default", "via", "10.77.1.1")
        masquerade = ("-A", "POSTROUTING", "-o", "to2", "-j", "MASQUERADE")
        _run(*inside(nat), "iptables", "-t", "nat", *masquerade)
        # What belongs to no connection that it knows; otherwise the server would reset it.
        forget = ("-A", "FORWARD", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP")
        _run(*inside(nat), "iptables", *forget)
        settings = {
            "ipv4/ip_forward": 1,
            "netfilter/nf_conntrack_tcp_timeout_established": seconds,
            "netfilter/nf_conntrack_tcp_loose": 0,
        }
        for name, value in settings.items():
            _run(*inside(nat), "sh", "-c", f"echo {value} > /proc/sys/net/{name}")
        yield Nat(inside(client), inside(server), "10.77.2.2")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
