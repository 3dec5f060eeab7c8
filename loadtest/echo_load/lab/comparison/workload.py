"""The workload of the comparison: a closed loop of echoes on some connections."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from echo_client.failure_kinds import MISMATCHES, FailureKind
from echo_core.errors import InvalidValueError
from echo_core.limits import raise_descriptor_limit
from echo_load.errors import LoadError
from echo_load.lab.comparison.observation import UsageObserver
from echo_load.lab.usage import Footprint, check_supported
from echo_load.plan.engine_name import EngineName
from echo_load.plan.plan import Plan
from echo_load.results.result import Result
from echo_load.runner.controller import run

_SIZES = (1, 10, 100, 1000, 5000)
_QUICK_SIZES = (1, 1000)
_CONNECTS_IN_FLIGHT = 256
_UNSERVED = frozenset({FailureKind.TIMEOUT, FailureKind.NO_REPLY})
# The lengths at which a run is tried, in lengths of the scale.
LENGTHS = (1, 2, 4)


class Client(NamedTuple):
    """An engine in some processes."""

    engine: EngineName
    processes: int


class Run(NamedTuple):
    """A run and what was observed.

    Attributes:
        result: its result.
        observer: its observer.
        idle: footprint of the observed processes without connections; None if it is not known.
    """

    result: Result
    observer: UsageObserver
    idle: Footprint | None = None


@dataclass(frozen=True, slots=True)
class Cores:
    """The cores of the server and those of the client, disjoint if there are two or more."""

    server: frozenset[int]
    client: frozenset[int]

    @classmethod
    def here(cls) -> Cores:
        """Give the server the first core of this process, and the client the others."""
        cores = sorted(os.sched_getaffinity(0))
        return cls(frozenset(cores[:1]), frozenset(cores[1:] or cores))


@dataclass(frozen=True, slots=True)
class Scale:
    """The extent of a comparison.

    Attributes:
        sizes: numbers of connections, in ascending order.
        seconds: length of a run in seconds.
        repeats: number of runs of each variant at each size.
    """

    sizes: Sequence[int]
    seconds: float
    repeats: int

    @classmethod
    def of(cls, quick: bool) -> Scale:
        """Return the scale of a quick run or of a full one."""
        return cls(_QUICK_SIZES, 1.0, 1) if quick else cls(_SIZES, 2.0, 3)


def prepare() -> Cores:
    """Raise the limit on descriptors, and divide the cores.

    Raises:
        CannotRunError: this system does not tell what processes use.
    """
    check_supported()
    raise_descriptor_limit()
    return Cores.here()


def echo(
    target: str, size: int, client: Client, observer: UsageObserver, cores: frozenset[int]
) -> Result | None:
    """Echo in a closed loop.

    Args:
        target: the server.
        size: number of connections.
        client: what generates the load.
        observer: observer of the run, which also has its length.
        cores: cores of the client.

    Returns:
        The result; None if not all connections could be opened or kept, or usage could not be
        read in time.

    Raises:
        InvalidValueError: there are not enough descriptors or ports.
        LoadError: a reply was wrong.
    """
    # The generators inherit this.
    os.sched_setaffinity(0, cores)
    plan = Plan(
        targets=(target,),
        engine=client.engine,
        processes=client.processes,
        connections=size,
        duration=observer.length,
        # A connection that waits for a process of the pool is given up in the midst of the run: at
        # its end the processes become free.
        timeout=observer.length / 2,
        # A connection that does not fit the backlog is not established.
        connects_in_flight=_CONNECTS_IN_FLIGHT,
        reconnect=False,
    )
    result = run(plan, observer=observer)
    totals = result.totals
    wrong = [str(kind) for kind in MISMATCHES if kind in totals.errors]
    if wrong:
        raise LoadError(f"{target} sent back what it was not sent: {', '.join(wrong)}")
    # Connections without a reply in time are a result.
    broken = totals.connections_failed or totals.errors.keys() - _UNSERVED
    return None if broken or not observer.seconds or not totals.messages else result


def longer_until_observed(seconds: float, attempt: Callable[[float], Run | None]) -> Run | None:
    """Run for some seconds, and again for longer if not all could be read in time.

    Where a machine is busy with other things, a reading or a handshake may come too late.

    Args:
        seconds: length of the first run.
        attempt: function that runs for a length in seconds; it returns None if not all connections
            could be opened or kept, or usage could not be read in time.

    Returns:
        The last run that was possible, perhaps without a footprint; None if there was none.
    """
    found = None
    for times in LENGTHS:
        try:
            tried = attempt(times * seconds)
        except InvalidValueError:
            return found
        found = tried or found
        if tried is not None and tried.observer.is_complete:
            break
    return found
