"""The distributions that are measured."""

from __future__ import annotations

from dataclasses import dataclass, field

from echo_load.measure.histogram import LatencyHistogram
from echo_load.measure.names import DISTRIBUTIONS


@dataclass(slots=True)
class Measured:
    """The distributions of one stage; those of several generators can be added.

    Attributes:
        response: round trips, from when a message was due.
        service: the same, from when it left; empty in a closed loop, where they are the same.
        first_byte: from a connection's first message to the first byte that came back on it.
        connect: what the path took to establish a connection.
        handshake: times that TLS took after that.
        kernel: round trips as the kernel's TCP smoothed them, one a connection that has ended.
        lateness: how late messages left that were due and had a free connection.
        hub_lag: how late the event loop was.
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
        """From when messages left, also in a closed loop."""
        return self.service if self.service.count else self.response

    def by_name(self) -> dict[str, LatencyHistogram]:
        """The distributions that results have."""
        found = {name: getattr(self, name) for name in DISTRIBUTIONS}
        return {**found, "service": self.service_times}

    def add(self, other: Measured) -> None:
        """Add what another one has."""
        for name in self.__slots__:
            getattr(self, name).merge(getattr(other, name))
