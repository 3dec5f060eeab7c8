"""The comparison of servers: the same echo service in each model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from echo_load.lab.serving import MODULES, serving
from echo_load.lab.usage import footprint, processes_of

_CLIENT = Client("hub", 1)
# The models that block, with a thread or a process for each connection.
_BLOCKING = ("threads", "fork")
# The models that the verdict compares.
_COMPARED = ("greenlets", *_BLOCKING)


def serve_in_each_way(quick: bool) -> Iterator[Measurement]:
    """Measure each kind of server, with the hub engine as its client.

    Raises:
        CannotRunError: what the verdict compares cannot be measured here.
    """
    cores, scale = prepare(), Scale.of(quick)
    found = Measurements()
    for size in scale.sizes:
        samples = Samples(size)
        for model in [*MODULES] * scale.repeats:
            if model in samples.unable:
                continue
            run = longer_until_observed(scale.seconds, partial(_serve, model, size, cores))
            if run is None:
                samples.unable.add(model)
                continue
            bound = samples.add(model, "client-bound", float(run.result.generator.bound))
            for measurement in (*samples.add_run(model, run), bound):
                found.add(measurement)
                yield measurement
    check_comparable(found, _COMPARED, "memory per connection", FEWEST_FOR_MEMORY)


def _serve(model: str, size: int, cores: Cores, seconds: float) -> Run | None:
    with serving(model, cores.server) as (target, pid):
        processes = partial(processes_of, pid)
        idle = footprint(processes())
        observer = UsageObserver(seconds, cores.client, processes, "middle")
        result = echo(target, size, _CLIENT, observer, cores.client)
    return None if result is None else Run(result, observer, idle)


def conclude_servers(measurements: Measurements) -> Conclusion:
    """Conclude that the claim holds if greenlets need less memory than others, and serve more.

    That they serve more at some numbers of connections only is a limit.
    """
    sizes = measured_sizes(measurements, _COMPARED, "memory per connection")
    largest = sizes[-1]
    smaller = all(
        measurements.median("memory per connection", "greenlets", size)
        < measurements.median("memory per connection", other, size)
        for other in _BLOCKING
        for size in sizes
    )
    faster = [
        size for size in sizes if all(_is_behind(measurements, one, size) for one in _BLOCKING)
    ]
    statement = joined(
        rankings(measurements, largest),
        unserved(measurements, largest),
        _advice(measurements, measured_sizes(measurements, _COMPARED)),
        _bound(measurements),
        unmeasured(measurements),
    )
    if not smaller:
        return Conclusion("does not hold", statement)
    return Conclusion("holds" if faster == sizes else "holds within a limit", statement)


def _is_behind(measurements: Measurements, other: str, size: int) -> bool:
    """Return whether a model echoes clearly less than greenlets, or leaves connections out."""
    if (
        measurements.median("served", other, size)
        < ALL
        <= measurements.median("served", "greenlets", size)
    ):
        return True
    greenlets = measurements.median("messages", "greenlets", size)
    return measurements.median("messages", other, size) * CLEARLY < greenlets


def _advice(measurements: Measurements, sizes: Sequence[int]) -> str:
    """Recommend models by number of connections."""
    largest = sizes[-1]
    said = []
    for model in _BLOCKING:
        served = [size for size in sizes if measurements.median("served", model, size) >= ALL]
        if served:
            most = served[-1]
            times = measurements.median("messages", model, most) / measurements.median(
                "messages", "greenlets", most
            )
            said.append(
                f"{model} serve{'s' * (model == 'fork')} up to {connections(most)} without leaving"
                f" any out, at {times:.2f} times the messages of greenlets"
            )
        else:
            said.append(f"{model} leave{'s' * (model == 'fork')} connections out at every size")
    advice = sentence("; ".join(said))
    asked = {one.of: one.median for one in measurements.named("messages") if one.at == largest}
    if "hub" in asked:
        advice += (
            " Where little is done between receiving and sending, callbacks on one set of "
            f"descriptors (the hub) make {asked['hub'] / asked['greenlets']:.1f} times the messages"
            " of greenlets. More cores take more processes, whatever the model."
        )
    return advice


def _bound(measurements: Measurements) -> str:
    bound = sorted({one.of for one in measurements.named("client-bound") if one.median > 0.5})
    if not bound:
        return ""
    return f"The client was the limit with {', '.join(bound)}: these servers can do more."


SERVERS = Experiment(
    name="servers",
    claim="Coroutines: high concurrency, high scalability, low cost.",
    method="The same echo service is written with a thread a connection, a fork a "
    "connection, a pre-forked pool of 100 processes, a greenlet a connection, an asyncio "
    "task a connection, and as echo-server's hub. Each is served on one core and tested "
    "by the hub engine on another, in a closed loop of 64 bytes a message, every byte "
    "checked; the models take turns. Memory is what the server's processes have beyond "
    "what they had before any connection, per connection that they hold, without the "
    "kernel's part.",
    measure=serve_in_each_way,
    conclude=conclude_servers,
    seconds=1800,
)
