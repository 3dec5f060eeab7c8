"""Network namespaces: a single one, and three with a NAT between a client and a server."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import pytest

from support.processes import program


class Nat(NamedTuple):
    """A NAT between a client and a server.

    Attributes:
        client: prefix of a command that runs on the client's side.
        server: prefix of a command that runs on the server's side.
        address: the server's IP address.
    """

    client: tuple[str, ...]
    server: tuple[str, ...]
    address: str


@contextmanager
def network_namespace(name: str) -> Iterator[str]:
    """Create a network namespace with a loopback interface for the duration of the block.

    The test is skipped without root, or without the programs `ip` and `iptables`.

    Args:
        name: beginning of its name, which ends with the process id.

    Yields:
        The name.
    """
    if os.geteuid() != 0:
        pytest.skip("needs root to create network namespaces")
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
def nat_with_idle_timeout(seconds: int) -> Iterator[Nat]:
    """Create a NAT with an idle timeout in seconds, for the duration of the block.

    It drops packets of TCP connections that have timed out. UDP has no connections: a datagram of
    the client gets a new mapping, and one of the server has none.
    """
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
        # Otherwise packets of unknown connections would reach the server, which would reset them.
        drop = ("-A", "FORWARD", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP")
        _run(*inside(nat), "iptables", *drop)
        settings = {
            "ipv4/ip_forward": 1,
            "netfilter/nf_conntrack_tcp_timeout_established": seconds,
            "netfilter/nf_conntrack_tcp_loose": 0,
            "netfilter/nf_conntrack_udp_timeout": seconds,
            "netfilter/nf_conntrack_udp_timeout_stream": seconds,
        }
        for name, value in settings.items():
            _run(*inside(nat), "sh", "-c", f"echo {value} > /proc/sys/net/{name}")
        yield Nat(inside(client), inside(server), "10.77.2.2")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
