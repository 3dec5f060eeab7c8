"""Connecting to the first of a name's addresses that answers: Happy Eyeballs (RFC 8305).

A name may have addresses of both IP versions, some of which do not answer. Attempts are started one
after the other at a short interval, and the first to succeed is used.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, zip_longest

from echo_client.addresses import Address
from echo_client.connecting import begin_to_connect, connect, not_connected, reachable_from
from echo_client.errors import ConnectError
from echo_client.proxy_header import ProxyHeaders
from echo_client.socket_options import DEFAULT_OPTIONS, SocketOptions

# The recommended interval between two attempts (RFC 8305, section 5).
ATTEMPT_DELAY_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Connected:
    """A connected socket.

    Attributes:
        socket: the connected socket, blocking and without a timeout.
        address: the address of the peer.
        connect_ns: the time that connecting to this address took, in nanoseconds.
    """

    socket: socket.socket
    address: Address
    connect_ns: int


def connect_first(
    addresses: Sequence[Address],
    timeout: float,
    source: str | None,
    options: SocketOptions = DEFAULT_OPTIONS,
) -> Connected:
    """Connect to the first of several addresses that answers.

    Args:
        addresses: the addresses, in order of preference.
        timeout: the timeout of each attempt in seconds.
        source: the local IP address to connect from; None lets the system choose.
        options: the options of the socket.

    Raises:
        ConnectError: no address answers; the error of the last attempt to fail.
    """
    candidates = reachable_from(source, addresses)
    if not candidates:
        raise ConnectError("there is no address to connect to")
    if len(candidates) == 1:
        (address,) = candidates
        connected, connect_ns = connect(address, timeout, source, options)
        return Connected(connected, address, connect_ns)
    race = _Race(_interleaved(candidates), timeout, source, options)
    try:
        return race.run()
    finally:
        race.close()


def best_first(
    addresses: Sequence[Address],
    timeout: float,
    source: str | None,
    headers: ProxyHeaders | None = None,
) -> Sequence[Address]:
    """Return the addresses with the one that answers first at the front.

    Call this once before opening many connections. If there are several addresses, it opens and
    closes a connection, on which it sends nothing but a PROXY header without a client; over UDP it
    sends an empty datagram to one address after the other, until one answers. If no address
    answers, the order is unchanged.

    Args:
        addresses: the addresses of one name, all of the same transport.
        timeout: the timeout of each attempt in seconds.
        source: the local IP address to connect from; None lets the system choose.
        headers: the PROXY headers with which streams begin; None if they have none.
    """
    if len(addresses) < 2:
        return addresses
    found: Address | None = None
    with suppress(ConnectError):
        if addresses[0].transport == "udp":
            found = _first_datagrams(addresses, timeout, source)
        else:
            connected = connect_first(addresses, timeout, source)
            found = connected.address
            with connected.socket, suppress(OSError):
                # An error means that it was closed, after it had answered.
                if headers is not None:
                    connected.socket.sendall(headers.of_no_client)
    return [found, *(one for one in addresses if one != found)] if found else addresses


def _interleaved(addresses: Sequence[Address]) -> list[Address]:
    """Return the addresses with alternating IP versions, the preferred one first (section 4)."""
    first = [one for one in addresses if one.family == addresses[0].family]
    others = [one for one in addresses if one.family != addresses[0].family]
    return [one for one in chain(*zip_longest(first, others)) if one is not None]


class _Race:
    """Concurrent attempts to connect, of which the first to succeed is used."""

    def __init__(
        self,
        addresses: Sequence[Address],
        timeout: float,
        source: str | None,
        options: SocketOptions,
    ) -> None:
        self._waiting = deque(addresses)
        self._timeout = timeout
        self._source = source
        self._options = options
        self._poll = select.poll()
        # By descriptor: the socket, its address, and when the attempt began (in nanoseconds).
        self._running: dict[int, tuple[socket.socket, Address, int]] = {}
        self._failure: ConnectError | None = None
        self._next_ns = 0

    def run(self) -> Connected:
        """Return the first connection that is established.

        Raises:
            ConnectError: all attempts failed.
        """
        while self._waiting or self._running:
            if self._waiting and time.monotonic_ns() >= self._next_ns:
                self._start(self._waiting.popleft())
            for descriptor, _ in self._poll.poll(self._milliseconds()):
                if (connected := self._finish(descriptor)) is not None:
                    return connected
            self._fail_late_attempts()
        assert self._failure is not None
        raise self._failure

    def close(self) -> None:
        """Close the sockets of attempts still in progress."""
        for connecting, _, _ in self._running.values():
            connecting.close()

    def _start(self, address: Address) -> None:
        begin = time.monotonic_ns()
        try:
            connecting = begin_to_connect(address, self._source, self._options)
        except ConnectError as error:
            self._fail(error)
            return
        self._running[connecting.fileno()] = (connecting, address, begin)
        self._poll.register(connecting, select.POLLOUT)
        self._next_ns = begin + int(ATTEMPT_DELAY_SECONDS * 1e9)

    def _finish(self, descriptor: int) -> Connected | None:
        """End an attempt; return the connection if it succeeded."""
        connecting, address, begin = self._take(descriptor)
        failure = connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not failure:
            connecting.setblocking(True)
            return Connected(connecting, address, time.monotonic_ns() - begin)
        connecting.close()
        self._fail(not_connected(OSError(failure, os.strerror(failure)), address, self._timeout))
        return None

    def _fail_late_attempts(self) -> None:
        """End the attempts whose timeouts have passed."""
        now = time.monotonic_ns()
        for descriptor, (_, _, begin) in list(self._running.items()):
            if now - begin >= self._timeout * 1e9:
                connecting, address, _ = self._take(descriptor)
                connecting.close()
                self._fail(not_connected(TimeoutError(), address, self._timeout))

    def _take(self, descriptor: int) -> tuple[socket.socket, Address, int]:
        self._poll.unregister(descriptor)
        return self._running.pop(descriptor)

    def _fail(self, error: ConnectError) -> None:
        self._failure = error
        # The next attempt may start at once (section 5).
        self._next_ns = 0

    def _milliseconds(self) -> float:
        """Return the milliseconds until the next attempt or timeout is due."""
        ends = [begin + int(self._timeout * 1e9) for _, _, begin in self._running.values()]
        if self._waiting:
            ends.append(self._next_ns)
        return max(0.0, (min(ends) - time.monotonic_ns()) / 1e6) if ends else 0.0


def _first_datagrams(
    addresses: Sequence[Address], timeout: float, source: str | None
) -> Address | None:
    """Return the first address that echoes an empty datagram, or else the first that is silent.

    UDP establishes no connection, so only an echo shows that an address answers. An address that
    ICMP reports to have no listener is not returned.
    """
    silent: Address | None = None
    for address in reachable_from(source, addresses):
        with suppress(ConnectError):
            probe, _ = connect(address, timeout, source)
            with probe:
                probe.settimeout(min(timeout, ATTEMPT_DELAY_SECONDS))
                try:
                    probe.send(b"")
                    probe.recv(1)
                except TimeoutError:
                    silent = silent or address
                except OSError:
                    continue
                else:
                    return address
    return silent
