"""Numbered messages that wait for their replies, and how what arrives is matched with them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

# A message begins with its number, by which the reply is recognised over UDP.
_NUMBER_BYTES = 8


class Outcome(Enum):
    """The kind of a reply that arrived."""

    REPLY = auto()
    WRONG = auto()
    # Over UDP: the reply to a message that had been given up, or a second reply.
    LATE = auto()
    DUPLICATE = auto()
    # Not the reply to any message.
    SURPLUS = auto()


@dataclass(frozen=True, slots=True)
class Message:
    """A message that was sent.

    Attributes:
        number: its number, from 1.
        data: its bytes.
        sent_ns: when it was sent, in nanoseconds of the monotonic clock.
    """

    number: int
    data: bytes
    sent_ns: int


@dataclass(frozen=True, slots=True)
class Arrival:
    """Data that arrived.

    Attributes:
        outcome: what it is.
        message: the message that it is the reply to; None if there is none.
        data: its bytes.
    """

    outcome: Outcome
    message: Message | None
    data: bytes


class Payload:
    """The bytes of numbered messages: the number, then random bytes that are the same in all.

    Args:
        size: the size of each message in bytes, at least 16.
    """

    def __init__(self, size: int) -> None:
        self._filler = os.urandom(size - _NUMBER_BYTES)

    def of(self, number: int) -> bytes:
        """Return the bytes of a message."""
        return number.to_bytes(_NUMBER_BYTES) + self._filler

    @staticmethod
    def number_in(data: bytes) -> int:
        """Return the number of the message that data seems to be the reply to."""
        return int.from_bytes(data[:_NUMBER_BYTES])


class StreamReplies:
    """Messages in flight on a stream, on which replies arrive in order.

    Attributes:
        in_flight: the messages in flight by number, the oldest first.
    """

    def __init__(self) -> None:
        self.in_flight: dict[int, Message] = {}
        self._received = b""

    @property
    def bytes_begun(self) -> int:
        """The number of bytes that have arrived of a reply that is not complete."""
        return len(self._received)

    def arrived(self, data: bytes) -> Iterator[Arrival]:
        """Yield what the data received completes."""
        self._received += data
        while self.in_flight and self._received:
            message = next(iter(self.in_flight.values()))
            size = len(message.data)
            if len(self._received) < size:
                return
            reply, self._received = self._received[:size], self._received[size:]
            del self.in_flight[message.number]
            outcome = Outcome.REPLY if reply == message.data else Outcome.WRONG
            yield Arrival(outcome, message, reply)
        if self._received:
            surplus, self._received = self._received, b""
            yield Arrival(Outcome.SURPLUS, None, surplus)

    def give_up(self) -> list[Message]:
        """Remove and return all messages: a stream that is lost has lost them all."""
        given_up = list(self.in_flight.values())
        self.in_flight.clear()
        self._received = b""
        return given_up


class DatagramReplies:
    """Messages in flight as datagrams, whose replies may be lost, reordered or duplicated.

    Args:
        payload: the bytes of the messages.

    Attributes:
        in_flight: the messages in flight by number, the oldest first.
    """

    def __init__(self, payload: Payload) -> None:
        self.in_flight: dict[int, Message] = {}
        self._payload = payload
        self._given_up: dict[int, Message] = {}

    @property
    def bytes_begun(self) -> int:
        """Always 0, because a datagram arrives whole."""
        return 0

    def arrived(self, data: bytes) -> Iterator[Arrival]:
        """Yield what a datagram is."""
        number = self._payload.number_in(data)
        message = self.in_flight.pop(number, None)
        if message is not None:
            outcome = Outcome.REPLY if data == message.data else Outcome.WRONG
            yield Arrival(outcome, message, data)
        elif data != self._payload.of(number):
            yield Arrival(Outcome.SURPLUS, None, data)
        elif number in self._given_up:
            yield Arrival(Outcome.LATE, self._given_up.pop(number), data)
        else:
            # Nobody else knows the random bytes, so this is the second reply.
            yield Arrival(Outcome.DUPLICATE, Message(number, data, 0), data)

    def give_up(self) -> list[Message]:
        """Remove and return the oldest message: the loss of a datagram concerns no other."""
        oldest = list(self.in_flight.values())[:1]
        for message in oldest:
            del self.in_flight[message.number]
            self._given_up[message.number] = message
        return oldest
