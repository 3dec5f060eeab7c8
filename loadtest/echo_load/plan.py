"""What a test is to do: the target, the stages, the limits."""

from __future__ import annotations

import math
import os
from itertools import pairwise
from typing import Literal

import msgspec

from echo_core.errors import InvalidValueError

# Descriptors that a generator needs besides its connections: standard streams, pipes, libraries.
SPARE_DESCRIPTORS = 64
MOST_CONNECTIONS = 1_000_000


class StagePlan(msgspec.Struct, frozen=True, kw_only=True):
    """One stage: so many connections, for so long.

    Attributes:
        connections: how many are opened, all before the first message.
        duration: seconds from the first message to the last.
    """

    connections: int
    duration: float

    def __post_init__(self) -> None:
        if not 1 <= self.connections <= MOST_CONNECTIONS:
            raise InvalidValueError(
                f"{self.connections} connections: a stage has 1 to {MOST_CONNECTIONS}"
            )
        if not 0 < self.duration < math.inf:
            raise InvalidValueError(f"a stage of {self.duration} seconds is no stage")

    @property
    def name(self) -> str:
        """What reports call the stage."""
        return f"{self.connections:,} connection{'s' if self.connections > 1 else ''}"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A test from its first stage to its last.

    Attributes:
        stages: run one after the other, each with connections of its own.
        engine: how a generator drives its connections.
        processes: generators that share the connections of a stage.
        timeout: seconds that a reply may take.
        connect_timeout: seconds that opening a connection may take.
        connects_in_flight: connections that a generator opens at once.
    """

    stages: tuple[StagePlan, ...]
    engine: Literal["threads"] = "threads"
    processes: int = 1
    timeout: float = 10.0
    connect_timeout: float = 5.0
    connects_in_flight: int = 64

    def __post_init__(self) -> None:
        if not self.stages:
            raise InvalidValueError("a plan needs at least one stage")
        if self.processes < 1:
            raise InvalidValueError(f"{self.processes} processes: at least one generates load")


def processes_for(connections: int, descriptor_limit: int) -> int:
    """How many generators a number of connections is shared out to by default.

    Half of the cores, so that the target has the others when it runs on the same machine; more
    where one process may not have so many descriptors.
    """
    for_descriptors = math.ceil(connections / (descriptor_limit - SPARE_DESCRIPTORS))
    return max(1, (os.cpu_count() or 1) // 2, for_descriptors)


def shares(connections: int, processes: int) -> list[range]:
    """Number the connections of a stage from 1 and share them out as evenly as possible."""
    processes = min(processes, connections)
    cuts = [1 + connections * index // processes for index in range(processes + 1)]
    return [range(low, high) for low, high in pairwise(cuts)]
