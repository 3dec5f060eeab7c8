"""The clients that the users of a swarm pretend to be in their PROXY headers.

Each process of a swarm begins at a place of its own among the addresses, and gives them to the
connections of its users in turn.
"""

from __future__ import annotations

from typing import Any

from echo_client.proxy_header import ProxyHeaders


class _Taken:
    """Counts the addresses that this process has given to its users."""

    def __init__(self) -> None:
        self._count = 0

    def take(self, connections: int) -> int:
        """Take an address for each connection; return the number of those taken before."""
        before = self._count
        self._count += connections
        return before


_taken = _Taken()


def clients_before(environment: Any, headers: ProxyHeaders | None, connections: int) -> int:
    """Take pretended clients for the connections of a user; return the number of those before.

    Args:
        environment: locust's environment, whose runner has the number of the worker.
        headers: headers of all users; None if connections have none.
        connections: number of connections of the user.
    """
    if headers is None or headers.clients is None:
        return 0
    worker = getattr(environment.runner, "worker_index", 0)
    return beginning(worker, headers.clients.count) + _taken.take(connections)


def beginning(worker: int, addresses: int) -> int:
    """Return the number of addresses before those of a worker; workers are numbered from 0.

    Workers begin after 0, 1/2, 1/4, 3/4, 1/8, 5/8 ... of the addresses (the van der Corput
    sequence): they are spread over all of them, however many workers there will be.
    """
    mirrored = int(f"{worker:b}"[::-1], 2)
    return (addresses * mirrored) >> worker.bit_length()
