"""The lines and the summary that a ping prints."""

from __future__ import annotations

import time
from array import array
from dataclasses import dataclass, field

from echo_client import differences, round_trips
from echo_client.connection import EchoConnection
from echo_client.outstanding import Arrival, Message, Outcome
from echo_core.endpoint import Endpoint
from echo_core.units import format_count, format_time


@dataclass(slots=True)
class PingCounts:
    """The outcomes of the messages of a ping.

    Attributes:
        messages: number of messages so far.
        lost: number of messages without a reply in time, or that could not be sent.
        wrong: number of messages whose reply differed.
        surplus: number of times that something arrived which was not the reply to any message.
        late: number of datagrams that arrived after their message was given up; it stays lost.
        duplicates: number of datagrams that arrived again.
        connections_lost: number of connections that broke, were closed, or were given up.
        round_trips_ns: the round trips of the replies that came back unchanged, in nanoseconds.
    """

    messages: int = 0
    lost: int = 0
    wrong: int = 0
    surplus: int = 0
    late: int = 0
    duplicates: int = 0
    connections_lost: int = 0
    round_trips_ns: array[int] = field(default_factory=lambda: array("q"))

    @property
    def received(self) -> int:
        """The number of messages that came back unchanged and in time."""
        return len(self.round_trips_ns)

    @property
    def flawless(self) -> bool:
        """True if each message came back once, unchanged and in time, on unbroken connections."""
        faults = self.lost + self.wrong + self.surplus + self.duplicates + self.connections_lost
        return not faults and self.received == self.messages


class PingReport:
    """The report of a ping, counted and printed to standard output.

    Args:
        endpoint: the endpoint that is pinged.

    Attributes:
        counts: the counts so far.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.counts = PingCounts()
        self._endpoint = endpoint
        self._jitter = round_trips.Jitter()
        self._begin = time.monotonic()

    def connected(self, connection: EchoConnection) -> None:
        """Report a new connection."""
        self._jitter.begin_connection()
        if self._endpoint.scheme == "udp":
            _print(f"sending to {self._endpoint}")
            return
        handshake = (
            f", TLS handshake {format_time(connection.handshake_ns / 1e9)}, {connection.cipher}"
            if connection.handshake_ns
            else ""
        )
        _print(
            f"connected to {self._endpoint} in {format_time(connection.connect_ns / 1e9)}"
            f"{handshake}"
        )

    def disconnected(self, reason: str) -> None:
        """Report the loss of a connection."""
        self.counts.connections_lost += 1
        _print(f"connection lost: {reason}")

    def lost(self, number: int, reason: str) -> None:
        """Report a message without a reply."""
        self.counts.lost += 1
        _print(f"seq={number} lost: {reason}")

    def arrived(self, arrival: Arrival, arrived_ns: int) -> None:
        """Report data that arrived at an instant of the monotonic clock, in nanoseconds."""
        counts, message = self.counts, arrival.message
        if message is None:
            counts.surplus += 1
            _print(
                f"{_from(arrival, self._endpoint)}: not the reply to any message: "
                f"{differences.excerpt(arrival.data)}"
            )
        elif arrival.outcome is Outcome.DUPLICATE:
            counts.duplicates += 1
            _print(f"{_from(arrival, self._endpoint)}: seq={message.number} duplicate")
        else:
            self._replied(arrival, message, arrived_ns - message.sent_ns)

    def _replied(self, arrival: Arrival, message: Message, nanoseconds: int) -> None:
        counts = self.counts
        line = (
            f"{_from(arrival, self._endpoint)}: seq={message.number} "
            f"time={format_time(nanoseconds / 1e9)}"
        )
        if arrival.outcome is Outcome.REPLY:
            counts.round_trips_ns.append(nanoseconds)
            self._jitter.add(nanoseconds)
            _print(line)
        elif arrival.outcome is Outcome.LATE:
            counts.late += 1
            _print(f"{line} late, counted as lost")
        else:
            counts.wrong += 1
            _print(f"{line} wrong: ", *differences.describe(message.data, arrival.data))

    def summary(self) -> None:
        """Print the summary."""
        counts = self.counts
        in_flight = counts.messages - counts.received - counts.lost - counts.wrong
        share = f" ({100 * counts.lost / counts.messages:.3g} %)" if counts.lost else ""
        parts = [f"{counts.received:,} received", f"{counts.lost:,} lost{share}"]
        others = {
            "wrong": counts.wrong,
            "in flight": in_flight,
            "late": counts.late,
            "surplus": counts.surplus,
        }
        parts += [f"{number:,} {name}" for name, number in others.items() if number]
        if counts.duplicates:
            parts.append(format_count(counts.duplicates, "duplicate"))
        if counts.connections_lost:
            parts.append(f"{format_count(counts.connections_lost, 'connection')} lost")
        elapsed = format_time(time.monotonic() - self._begin)
        _print(f"--- {self._endpoint} ---")
        _print(f"{format_count(counts.messages, 'message')}: {', '.join(parts)}; {elapsed}")
        if counts.received:
            jitter = self._jitter.nanoseconds
            suffix = "" if jitter is None else f", jitter {format_time(jitter / 1e9)}"
            _print(f"{round_trips.summary(counts.round_trips_ns)}{suffix}")


def _from(arrival: Arrival, endpoint: Endpoint) -> str:
    return f"{format_count(len(arrival.data), 'byte')} from {endpoint.location}"


def _print(first: str, *others: str) -> None:
    # One write a report, and at once: the output may be a pipe that someone follows.
    print("\n".join([first + "".join(others[:1]), *others[1:]]), flush=True)
