"""UDP: every datagram is sent back whole and alone, many a wake-up.

An echo service over UDP can be turned against others, or against itself, by a datagram with a
forged source (CERT advisory CA-1996-01): two echo services that are told of each other never stop.
So a datagram from the port that it came to is dropped, and by default one from a port below 1024,
where the services live that answer anything.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Any

import structlog
from gevent.hub import get_hub

from echo_server.counters import Counter, Counters

log = structlog.get_logger()

LARGEST = 65_507
# Datagrams a wake-up serves before the hub gets to run everything else.
BATCH = 256
FIRST_HIGH_PORT = 1024
_HUB_READ = 1
# linux/sock_diag.h: the numbers of SO_MEMINFO; the ninth is what the kernel had to drop.
_SO_MEMINFO = 55
_MEMINFO = struct.Struct("=9I")


class DatagramEcho:
    """Echoes the datagrams of one socket.

    Args:
        listener: a bound UDP socket, non-blocking; `stop` closes it.
        counters: where datagrams and bytes are counted.
        low_ports: answer ports below 1024 too.
    """

    def __init__(self, listener: socket.socket, counters: Counters, *, low_ports: bool) -> None:
        self._socket = listener
        self._counters = counters
        self._lowest_port = 1 if low_ports else FIRST_HIGH_PORT
        self._own_port: int = listener.getsockname()[1]
        self._buffer = bytearray(LARGEST + 1)
        self._view = memoryview(self._buffer)
        self._dropped_by_kernel = self._kernel_drops()
        self._watcher = get_hub().loop.io(listener.fileno(), _HUB_READ)

    def start(self) -> None:
        """Echo from now on."""
        self._watcher.start(self._on_ready)

    def stop(self) -> None:
        """Echo what waits, then close the socket."""
        # One that is sent to without end never runs empty.
        for _ in range(BATCH):
            if not self.echo_batch():
                break
        self.look_at_drops()
        self._watcher.stop()
        self._watcher.close()
        self._socket.close()

    def echo_batch(self) -> int:
        """Echo up to a batch of datagrams; returns how many came."""
        for number in range(BATCH):
            try:
                size, address = self._socket.recvfrom_into(self._buffer)
            except BlockingIOError:
                return number
            except OSError as error:
                # An ICMP error of an earlier datagram, delivered here (udp(7)).
                log.debug("datagram not received", reason=error.strerror)
                continue
            if self.admit(address[1], size):
                self.send(self._view[:size], address)
        return BATCH

    def admit(self, port: int, size: int) -> bool:
        """Count a datagram; False if one from this port is not answered."""
        counters = self._counters
        counters.add(Counter.DATAGRAMS_RECEIVED)
        counters.add(Counter.RECEIVED_BYTES, size)
        if port == self._own_port:
            counters.add(Counter.DROPPED_OWN_PORT)
            return False
        if port < self._lowest_port:
            counters.add(Counter.DROPPED_LOW_PORT)
            return False
        return True

    def send(self, data: memoryview | bytes, address: Any) -> None:
        """Send a datagram and count it, or that it could not be sent."""
        try:
            self._socket.sendto(data, address)
        except OSError as error:
            self._counters.add(Counter.DROPPED_SEND_FAILED)
            log.debug("datagram not sent", reason=error.strerror)
        else:
            self._counters.add(Counter.DATAGRAMS_SENT)
            self._counters.add(Counter.SENT_BYTES, len(data))

    def look_at_drops(self) -> None:
        """Count what the kernel had to drop since the last look, because nobody took it in time."""
        dropped = self._kernel_drops()
        # A 32-bit number that begins anew.
        self._counters.add(
            Counter.DROPPED_QUEUE_FULL, (dropped - self._dropped_by_kernel) & 0xFFFFFFFF
        )
        self._dropped_by_kernel = dropped

    def _kernel_drops(self) -> int:
        try:
            information = self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
        except OSError:
            # Only Linux tells.
            return 0
        if len(information) < _MEMINFO.size:
            return 0
        drops: int = _MEMINFO.unpack(information)[-1]
        return drops

    def _on_ready(self) -> None:
        # An exception that left a callback of the hub would stop its watcher for ever.
        try:
            self.echo_batch()
        except Exception:
            log.exception("datagrams failed")


def best_datagram_kind() -> Callable[..., DatagramEcho]:
    """The fastest kind of datagram echo that this system has."""
    from echo_server.datagram_batch import BatchedDatagramEcho, is_supported

    return BatchedDatagramEcho if is_supported() else DatagramEcho
