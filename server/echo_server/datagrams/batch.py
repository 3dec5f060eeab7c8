"""Echoing of many datagrams with two system calls, recvmmsg(2) and sendmmsg(2), through ctypes.

Both calls use the same array of message headers, so that what was received is sent: the data, the
address and, on a socket bound to all addresses, the local address of the datagram (IP_PKTINFO,
ip(7)), which must be the source of the reply. No Python code runs per datagram: lengths are copied
from one strided view to another, and the ports are checked as a set.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import sys
from collections.abc import Collection
from typing import Any

import structlog

from echo_server.datagrams.echo import LARGEST, DatagramEcho
from echo_server.metrics.counters import Counter, Counters

log = structlog.get_logger()

# The maximum number of datagrams per call.
COUNT = 64
# Not a multiple of 64 KiB: such buffers would map to the same few sets of the processor's caches.
_BUFFER_STRIDE = LARGEST + 9 + 7 * 64
_NAME_BYTES = 32
_CONTROL_BYTES = 64


class _Vector(ctypes.Structure):
    """The struct iovec of readv(2)."""

    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


class _Message(ctypes.Structure):
    """The struct mmsghdr of recvmmsg(2)."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_size", ctypes.c_uint32),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_size", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        # The fields above are a struct msghdr, whose size is a multiple of 8 bytes.
        ("padding", ctypes.c_int),
        ("size", ctypes.c_uint32),
    )


# Constants for the hot path: the lookup of an enumeration's attribute costs more than counting.
_DATAGRAMS_RECEIVED = int(Counter.DATAGRAMS_RECEIVED)
_DATAGRAMS_SENT = int(Counter.DATAGRAMS_SENT)
_RECEIVED_BYTES = int(Counter.RECEIVED_BYTES)
_SENT_BYTES = int(Counter.SENT_BYTES)
_WORDS = ctypes.sizeof(_Message) // 4
_SIZE_WORD = _Message.size.offset // 4
_VECTOR_WORDS = ctypes.sizeof(_Vector) // 4
_VECTOR_SIZE_WORD = _Vector.size.offset // 4


def is_supported() -> bool:
    """Return True on systems with these structures: 64-bit, little-endian Linux."""
    return (
        sys.platform == "linux"
        and ctypes.sizeof(ctypes.c_void_p) == 8
        and sys.byteorder == "little"
    )


class BatchedDatagramEcho(DatagramEcho):
    """The echo of a UDP socket, for up to `COUNT` datagrams with two system calls."""

    def __init__(
        self,
        listener: socket.socket,
        counters: Counters,
        *,
        own_ports: Collection[int],
        low_ports: bool,
    ) -> None:
        super().__init__(listener, counters, own_ports=own_ports, low_ports=low_ports)
        libc = ctypes.CDLL(None, use_errno=True)
        self._receive: Any = libc.recvmmsg
        self._send: Any = libc.sendmmsg
        self._receive.argtypes = [
            *(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)
        ]
        self._send.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int]
        self._descriptor = listener.fileno()
        refused_ports = {*range(1, self._lowest_port), *self._own_ports}
        # In network byte order, as in the addresses.
        self._refused_ports = {socket.htons(port) for port in refused_ports}
        self._allocate()

    def _allocate(self) -> None:
        """Allocate the message headers and all that they point to."""
        names = bytearray(COUNT * _NAME_BYTES)
        vectors = bytearray(COUNT * ctypes.sizeof(_Vector))
        messages = bytearray(COUNT * ctypes.sizeof(_Message))
        controls = bytearray(COUNT * _CONTROL_BYTES)
        data = bytearray(COUNT * _BUFFER_STRIDE)
        # The addresses below stay valid because these objects prevent a reallocation.
        self._memory = [_pinned(one) for one in (data, controls, names, vectors, messages)]
        data_at, controls_at, names_at, vectors_at, messages_at = map(
            ctypes.addressof, self._memory
        )
        for number in range(COUNT):
            vector = _Vector.from_buffer(vectors, number * ctypes.sizeof(_Vector))
            vector.base = data_at + number * _BUFFER_STRIDE
            vector.size = LARGEST + 1
            message = _Message.from_buffer(messages, number * ctypes.sizeof(_Message))
            message.name = names_at + number * _NAME_BYTES
            message.name_size = _NAME_BYTES
            message.vectors = vectors_at + number * ctypes.sizeof(_Vector)
            message.vector_count = 1
            message.control = controls_at + number * _CONTROL_BYTES
            message.control_size = _CONTROL_BYTES
        self._message_bytes = memoryview(messages)
        self._vector_bytes = memoryview(vectors)
        # The kernel writes lengths into both: before each receive they are reset to this state.
        self._initial_messages = bytes(self._message_bytes)
        self._initial_vectors = bytes(self._vector_bytes)
        self._received_sizes = _words(messages)[_SIZE_WORD::_WORDS]
        self._vector_sizes = _words(vectors)[_VECTOR_SIZE_WORD::_VECTOR_WORDS]
        self._ports = memoryview(names).cast("H")[1 :: _NAME_BYTES // 2]
        self._first_message = messages_at
        word = self.interface_word
        self._interfaces = None if word is None else _words(controls)[word :: _CONTROL_BYTES // 4]
        self._any_interface = memoryview(bytes(4 * COUNT)).cast("I")

    def echo_batch(self) -> int:
        """Echo up to a batch of datagrams; return the number received."""
        self._message_bytes[:] = self._initial_messages
        self._vector_bytes[:] = self._initial_vectors
        count: int = self._receive(
            self._descriptor, self._first_message, COUNT, socket.MSG_DONTWAIT, None
        )
        if count < 0:
            self._receive_failed(ctypes.get_errno())
            return 0
        if self._interfaces is not None:
            # Send the reply by the route to its destination, not by the interface of the datagram.
            self._interfaces[:] = self._any_interface
        sizes = self._received_sizes[:count]
        self._vector_sizes[:count] = sizes
        if not self._refused_ports.isdisjoint(self._ports[:count].tolist()):
            self._echo_individually(count)
            return count
        total = sum(sizes)
        cells = self._counters.cells
        cells[_DATAGRAMS_RECEIVED] += count
        cells[_RECEIVED_BYTES] += total
        sent = self._send(self._descriptor, self._first_message, count, socket.MSG_DONTWAIT)
        if sent == count:
            cells[_DATAGRAMS_SENT] += count
            cells[_SENT_BYTES] += total
        else:
            self._send_remaining(0, count, sent)
        return count

    def _echo_individually(self, count: int) -> None:
        """Echo a batch one by one, omitting datagrams that are not to be answered."""
        for number in range(count):
            port = socket.ntohs(self._ports[number])
            if self.admit(port, self._received_sizes[number]):
                self._send_remaining(number, number + 1, 0)

    def _send_remaining(self, first: int, end: int, sent: int) -> None:
        """Count the datagrams sent, and send the remaining ones: sendmmsg stops at a failure.

        Args:
            first: the index of the first datagram of the last call.
            end: the index after the last datagram.
            sent: the result of the last call: the number of datagrams sent, or -1.
        """
        while True:
            if sent < 0:
                # An error always refers to the first datagram, which is dropped.
                log.debug("datagram not sent", reason=os.strerror(ctypes.get_errno()))
                self._counters.add(Counter.DROPPED_SEND_FAILED)
                first += 1
            else:
                self._counters.add(Counter.DATAGRAMS_SENT, sent)
                self._counters.add(
                    Counter.SENT_BYTES, sum(self._received_sizes[first : first + sent])
                )
                first += sent
            if first >= end:
                return
            message = self._first_message + first * ctypes.sizeof(_Message)
            sent = self._send(self._descriptor, message, end - first, socket.MSG_DONTWAIT)

    def _receive_failed(self, number: int) -> None:
        if number not in {errno.EAGAIN, errno.EINTR}:
            # An ICMP error of an earlier datagram, delivered here (udp(7)).
            log.debug("datagram not received", reason=os.strerror(number))


def _words(memory: bytearray) -> memoryview:
    """Return a view of the memory as unsigned 4-byte integers."""
    return memoryview(memory).cast("I")


def _pinned(memory: bytearray) -> ctypes.Array[ctypes.c_char]:
    """Return the memory of a bytearray, which cannot be resized as long as the result exists."""
    return (ctypes.c_char * len(memory)).from_buffer(memory)
