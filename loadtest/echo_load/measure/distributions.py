"""The distributions that are measured."""

from __future__ import annotations

from dataclasses import dataclass, field

from echo_load.measure.histogram import LatencyHistogram
from echo_load.measure.names import DISTRIBUTIONS


@dataclass(slots=True)
class Measured:
    """The distributions of one stage; those of several generators can be added.

    Attributes:
        response: response times, from when a message was due until its reply had arrived.
        service: service times, from when a message was sent until its reply had arrived; empty in
            a closed loop, where a message is due when it is sent.
        first_byte: from a connection's first message to the first byte received on it.
        connect: time that the network took to establish a connection.
        handshake: time of the TLS handshake after that.
        kernel: the kernel's smoothed round trip of each TCP connection that has ended.
        lateness: delays from when a message was due until it was sent, if its connection was free.
        hub_lag: delays of the event loop.
    """

    response: LatencyHistogram = field(default_factory=LatencyHistogram)
    service: LatencyHistogram = field(default_factory=LatencyHistogram)
    first_byte: LatencyHistogram = field(default_factory=LatencyHistogram)
    connect: LatencyHistogram = field(default_factory=LatencyHistogram)
    handshake: LatencyHistogram = field(default_factory=LatencyHistogram)
    kernel: LatencyHistogram = field(default_factory=LatencyHistogram)
    lateness: LatencyHistogram = field(default_factory=LatencyHistogram)
    hub_lag: LatencyHistogram = field(default_factory=LatencyHistogram)

    @property
    def service_times(self) -> LatencyHistogram:
        """Service times, also in a closed loop."""
        return self.service if self.service.count else self.response

    def by_name(self) -> dict[str, LatencyHistogram]:
        """Return the distributions of a result, by name."""
        found = {name: getattr(self, name) for name in DISTRIBUTIONS}
        return {**found, "service": self.service_times}

    def add(self, other: Measured) -> None:
        """Add the distributions of another one."""
        for name in self.__slots__:
            getattr(self, name).merge(getattr(other, name))
