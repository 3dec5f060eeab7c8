"""The comparison of clients: the same stress test in each model."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from functools import partial

from echo_load.lab.comparison.observation import UsageObserver
from echo_load.lab.comparison.samples import FEWEST_FOR_MEMORY, Samples
from echo_load.lab.comparison.statements import (
    ALL,
    CLEARLY,
    check_comparable,
    connections,
    joined,
    measured_sizes,
    rankings,
    unmeasured,
    unserved,
)
from echo_load.lab.comparison.workload import (
    Client,
    Cores,
    Run,
    Scale,
    echo,
    longer_until_observed,
    prepare,
)
from echo_load.lab.experiment import Conclusion, Experiment, Measurement, Measurements
from echo_load.lab.notation import sentence
from echo_load.lab.serving import serving
from echo_load.lab.usage import Footprint

_CLIENTS = {
    "threads": Client("threads", 1),
    "threads x 2": Client("threads", 2),
    "greenlets": Client("greenlets", 1),
    "hub": Client("hub", 1),
}
# The clients that the verdict compares.
_COMPARED = ("hub", "threads")


def generate_in_each_way(quick: bool) -> Iterator[Measurement]:
    """Measure each kind of client, against echo-server.

    Raises:
        CannotRunError: what the verdict compares cannot be measured here.
    """
    cores, scale = prepare(), Scale.of(quick)
    found = Measurements()
    # Those with the smallest number of connections.
    smallest: dict[str, Footprint] = {}
    for size in scale.sizes:
        samples = Samples(size)
        for name, client in [*_CLIENTS.items()] * scale.repeats:
            if name in samples.unable:
                continue
            run = longer_until_observed(scale.seconds, partial(_generate, client, size, cores))
            if run is None:
                samples.unable.add(name)
                continue
            loaded = run.observer.footprint
            if size == scale.sizes[0] and loaded is not None:
                smallest.setdefault(name, loaded)
            idle = smallest.get(name)
            if idle is not None and loaded is not None:
                run = run._replace(idle=idle.scaled(loaded.processes))
            for measurement in samples.add_run(name, run):
                found.add(measurement)
                yield measurement
    check_comparable(found, _COMPARED, "messages", FEWEST_FOR_MEMORY)


def _generate(client: Client, size: int, cores: Cores, seconds: float) -> Run | None:
    with serving("hub", cores.server) as (target, _):
        observer = UsageObserver(seconds, cores.server, generators, "beginning")
        result = echo(target, size, client, observer, cores.client)
    return None if result is None else Run(result, observer)


def generators() -> list[int]:
    """Return the ids of this process's generators; not those of a server and a resource tracker."""
    return [one.pid for one in multiprocessing.active_children() if one.pid is not None]


def conclude_clients(measurements: Measurements) -> Conclusion:
    """Conclude that the claim holds if a client of threads is nowhere clearly behind the hub.

    That it is behind at some numbers of connections only is a limit.
    """
    sizes = measured_sizes(measurements, _COMPARED)
    largest = sizes[-1]
    behind = [size for size in sizes if _is_behind(measurements, size)]
    statement = joined(
        rankings(measurements, largest),
        unserved(measurements, largest),
        _extent(measurements, sizes, behind),
        "A client of threads measures mainly itself." if largest in behind else "",
        unmeasured(measurements),
    )
    if not behind:
        return Conclusion("holds", statement)
    return Conclusion("does not hold" if behind == sizes else "holds within a limit", statement)


def _is_behind(measurements: Measurements, size: int) -> bool:
    """Return whether threads make clearly fewer messages than the hub, or use fewer connections."""
    reached = {one.of: one.median >= ALL for one in measurements.named("served") if one.at == size}
    if reached.get("hub") and not reached.get("threads", True):
        return True
    hub, threads = (measurements.median("messages", of, size) for of in _COMPARED)
    return hub > threads * CLEARLY


def _extent(measurements: Measurements, sizes: list[int], behind: list[int]) -> str:
    """State at which sizes threads keep up with the hub, and the ratio at the others."""
    parts = []
    if kept_up := [size for size in sizes if size not in behind]:
        parts.append(f"threads keep up with the hub at {_listed(kept_up)}")
    if behind:
        hub, threads = (
            [measurements.median("messages", of, size) for size in behind] for of in _COMPARED
        )
        ratios = sorted(own / other for own, other in zip(threads, hub, strict=True))
        extent = " to ".join(dict.fromkeys(f"{ratio:.2f}" for ratio in (ratios[0], ratios[-1])))
        parts.append(f"at {_listed(behind)} threads make {extent} times the messages of the hub")
    text = "; ".join(parts)
    return sentence(text)


def _listed(sizes: list[int]) -> str:
    """Return the numbers of connections as text."""
    *others, last = sizes
    before = ", ".join(f"{size:,}" for size in others)
    return f"{before} and {connections(last)}" if before else connections(last)


CLIENTS = Experiment(
    name="clients",
    claim="A thread for each connection is a way to test a server with 1,000 connections.",
    method="The tutorial's stress test is done by a thread a connection, by two processes "
    "of threads, by a greenlet a connection, and by the hub, each on the cores that "
    "echo-server, which has one core, leaves; closed loop, 64 bytes a message, every byte "
    "checked. Memory is what the generators have with all connections open beyond what they have "
    "with one, per connection.",
    measure=generate_in_each_way,
    conclude=conclude_clients,
    seconds=1800,
)
