"""The UDP echo: each datagram is answered with one datagram, many per wake-up.

A datagram with a forged source address can make two echo services send datagrams to each other
without end (CERT advisory CA-1996-01, CVE-2024-2169). Datagrams from the ports that the server
itself echoes on are therefore dropped, and by default those from ports below 1024, where services
that answer any datagram are found.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Collection
from typing import Any, NamedTuple

import structlog
from gevent.hub import get_hub

from echo_core.limits import LARGEST_DATAGRAM
from echo_server.metrics.counters import Counter, Counters

log = structlog.get_logger()

LARGEST = max(LARGEST_DATAGRAM.values())
# The maximum number of datagrams served per wake-up, before the hub runs other callbacks.
BATCH = 256
FIRST_HIGH_PORT = 1024
_HUB_READ = 1
# linux/in.h, linux/in6.h
_IP_PKTINFO = 8
_IPV6_RECVPKTINFO = 49
# The bytes of a struct cmsghdr, and the positions, in words of 4 bytes, of the interface after it:
# first in struct in_pktinfo, after the address in struct in6_pktinfo.
_CMSG_HEADER = 16
_IPV4_INTERFACE_WORD = 4
_IPV6_INTERFACE_WORD = 8
# The space for ancillary data.
_LOCAL_BYTES = 64
# SO_MEMINFO (linux/sock_diag.h): the ninth number is the count of datagrams that the kernel
# dropped.
_SO_MEMINFO = 55
_MEMINFO = struct.Struct("=9I")


class Route(NamedTuple):
    """The destination of a reply, and the local address to send it from.

    Attributes:
        address: the address of the datagram's sender.
        local: ancillary data with the local address of the datagram; empty if the socket is bound
            to a single address.
    """

    address: Any
    local: tuple[tuple[int, int, bytes], ...]


class DatagramEcho:
    """The echo of a UDP socket.

    Args:
        listener: a bound UDP socket, non-blocking; `stop` closes it.
        counters: the counters for datagrams and bytes.
        own_ports: the ports of all UDP listeners of the server; datagrams from them are dropped.
        low_ports: True to answer datagrams from ports below 1024, too.

    Attributes:
        interface_word: the position of the interface in the ancillary data of a datagram, in words
            of 4 bytes; None if datagrams have no such data.
    """

    def __init__(
        self,
        listener: socket.socket,
        counters: Counters,
        *,
        own_ports: Collection[int],
        low_ports: bool,
    ) -> None:
        self._socket = listener
        self._counters = counters
        self._lowest_port = 1 if low_ports else FIRST_HIGH_PORT
        self._own_ports = frozenset(own_ports)
        self.interface_word = self._enable_packet_info()
        self._buffer = bytearray(LARGEST + 1)
        self._view = memoryview(self._buffer)
        self._dropped_by_kernel = self._kernel_drops()
        self._watcher = get_hub().loop.io(listener.fileno(), _HUB_READ)

    def start(self) -> None:
        """Start the echo."""
        self._watcher.start(self._on_ready)

    def stop(self) -> None:
        """Echo the queued datagrams, then close the socket."""
        # The number of batches is limited: new datagrams may arrive continuously.
        for _ in range(BATCH):
            if not self.echo_batch():
                break
        self.close()

    def close(self) -> None:
        """Close the socket; other processes that share it serve its queued datagrams."""
        self.count_drops()
        self._watcher.stop()
        self._watcher.close()
        self._socket.close()

    def echo_batch(self) -> int:
        """Echo up to a batch of datagrams; return the number received."""
        for number in range(BATCH):
            try:
                size, route = self._receive_one()
            except BlockingIOError:
                return number
            except OSError as error:
                # An ICMP error of an earlier datagram, delivered here (udp(7)).
                log.debug("datagram not received", reason=error.strerror)
                continue
            if self.admit(route.address[1], size):
                self.send(self._view[:size], route)
        return BATCH

    def admit(self, port: int, size: int) -> bool:
        """Count a datagram as received; if its port is not answered, drop it and return False."""
        counters = self._counters
        counters.add(Counter.DATAGRAMS_RECEIVED)
        counters.add(Counter.RECEIVED_BYTES, size)
        if port in self._own_ports:
            counters.add(Counter.DROPPED_OWN_PORT)
            return False
        if port < self._lowest_port:
            counters.add(Counter.DROPPED_LOW_PORT)
            return False
        return True

    def send(self, data: memoryview | bytes, route: Route) -> None:
        """Send a datagram, and count it as sent or as failed."""
        try:
            self._socket.sendmsg([data], route.local, 0, route.address)
        except OSError as error:
            self._counters.add(Counter.DROPPED_SEND_FAILED)
            log.debug("datagram not sent", reason=error.strerror)
        else:
            self._counters.add(Counter.DATAGRAMS_SENT)
            self._counters.add(Counter.SENT_BYTES, len(data))

    def _receive_one(self) -> tuple[int, Route]:
        if self.interface_word is None:
            size, address = self._socket.recvfrom_into(self._buffer)
            return size, Route(address, ())
        size, local, _, address = self._socket.recvmsg_into([self._buffer], _LOCAL_BYTES)
        start = 4 * self.interface_word - _CMSG_HEADER
        return size, Route(
            address,
            tuple(
                (level, kind, value[:start] + bytes(4) + value[start + 4 :])
                for level, kind, value in local
            ),
        )

    def _enable_packet_info(self) -> int | None:
        """Make the kernel report the local address of each datagram, if there may be several.

        The reply must come from that address. It is sent by the route to its destination, and not
        by the interface of the datagram, whose position in the ancillary data is returned.
        """
        host = self._socket.getsockname()[0]
        if sys.platform != "linux" or host not in {"0.0.0.0", "::"}:  # noqa: S104  # not bound here
            return None
        if self._socket.family == socket.AF_INET:
            self._socket.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
            return _IPV4_INTERFACE_WORD
        self._socket.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
        return _IPV6_INTERFACE_WORD

    def count_drops(self) -> None:
        """Count the datagrams that the kernel dropped since the last call."""
        dropped = self._kernel_drops()
        # A 32-bit counter, which wraps around.
        self._counters.add(
            Counter.DROPPED_QUEUE_FULL, (dropped - self._dropped_by_kernel) & 0xFFFFFFFF
        )
        self._dropped_by_kernel = dropped

    def _kernel_drops(self) -> int:
        try:
            information = self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
        except OSError:
            # Only Linux provides the number.
            return 0
        if len(information) < _MEMINFO.size:
            return 0
        drops: int = _MEMINFO.unpack(information)[-1]
        return drops

    def _on_ready(self) -> None:
        # An exception that escapes from a hub callback would stop its watcher for good.
        try:
            self.echo_batch()
        except Exception:
            log.exception("datagrams failed")
