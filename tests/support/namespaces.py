"""A NAT between a client and a server, in network namespaces."""

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
def forgetful_nat(seconds: int) -> Iterator[Nat]:
    """Run a NAT that forgets connections after some seconds of idleness, and drops what it lost."""
    if os.geteuid() != 0:
        pytest.skip("needs root: it makes network namespaces")
    for name in ("ip", "iptables"):
        program(name)
    client, nat, server = (f"{side}-{os.getpid()}" for side in ("client", "nat", "server"))
    with ExitStack() as stack:
        for name in (client, nat, server):
            _run("ip", "netns", "add", name)
            stack.callback(_run, "ip", "netns", "delete", name)
            _run("ip", "-n", name, "link", "set", "lo", "up")
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
        inside = ("ip", "netns", "exec", nat)
        masquerade = ("-A", "POSTROUTING", "-o", "to2", "-j", "MASQUERADE")
        _run(*inside, "iptables", "-t", "nat", *masquerade)
        # What belongs to no connection that it knows; otherwise the server would reset it.
        forget = ("-A", "FORWARD", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP")
        _run(*inside, "iptables", *forget)
        settings = {
            "ipv4/ip_forward": 1,
            "netfilter/nf_conntrack_tcp_timeout_established": seconds,
            "netfilter/nf_conntrack_tcp_loose": 0,
        }
        for name, value in settings.items():
            _run(*inside, "sh", "-c", f"echo {value} > /proc/sys/net/{name}")
        prefixes = [("ip", "netns", "exec", side) for side in (client, server)]
        yield Nat(prefixes[0], prefixes[1], "10.77.2.2")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
