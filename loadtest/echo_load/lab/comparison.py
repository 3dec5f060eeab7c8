"""The models side by side: the same echo workload, served and generated in each way."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

from echo_client.failure_kinds import MISMATCHES, FailureKind
from echo_core.errors import InvalidValueError
from echo_core.limits import raise_descriptor_limit
from echo_core.units import format_count
from echo_load.errors import LoadError
from echo_load.lab.experiment import (
    CannotRunError,
    Chapter,
    Conclusion,
    Experiment,
    Figure,
    Figures,
    Unit,
)
from echo_load.lab.notation import sentence, written
from echo_load.lab.serving import MODULES, serving
from echo_load.lab.usage import Probe, Usage, check_supported, memory, processes_of
from echo_load.plan.plan import EngineName, Plan
from echo_load.results.result import Result
from echo_load.runner.controller import run
from echo_load.runner.observer import Observer, Progress

SIZES = (1, 10, 100, 1000, 5000)
QUICK_SIZES = (1, 1000)
_SECONDS = 2.0
_QUICK_SECONDS = 1.0
_REPEATS = 3
# The part of a run in which it is watched, from and to, as shares of its length.
_WINDOW_BEGINS = 0.1
_WINDOW_ENDS = 0.8
_UNITS: dict[str, Unit] = {
    "messages": "1/s",
    "p50": "s",
    "p99": "s",
    "CPU per echo": "s",
    "switches per echo": "",
    "memory per connection": "B",
    "served": "share",
    "client-bound": "share",
}
_CONNECTS_IN_FLIGHT = 256
# With fewer the noise is larger than what a connection needs.
_FEWEST_FOR_MEMORY = 1000
_UNSERVED = frozenset({FailureKind.TIMEOUT, FailureKind.NO_REPLY})
# The models that block, with a thread or a process for each connection.
_BLOCKING = ("threads", "fork")
# What the verdicts compare.
_SERVERS = ("greenlets", *_BLOCKING)
_CLIENTS_COMPARED = ("hub", "greenlets", "threads")
# The share of connections that is as good as all of them.
_ALL = 0.999
# Less is noise.
_CLEARLY = 1.15


class _Client(NamedTuple):
    """A kind of client: an engine in some processes."""

    engine: EngineName
    processes: int


_CLIENTS = {
    "threads": _Client("threads", 1),
    "threads x 2": _Client("threads", 2),
    "greenlets": _Client("greenlets", 1),
    "hub": _Client("hub", 1),
}


@dataclass(frozen=True, slots=True)
class _Cores:
    """The cores of the server, and those of the client: apart, if there are two or more."""

    server: frozenset[int]
    client: frozenset[int]

    @classmethod
    def here(cls) -> _Cores:
        """Give the server the first core of this process, and the client the others."""
        cores = sorted(os.sched_getaffinity(0))
        return cls(frozenset(cores[:1]), frozenset(cores[1:] or cores))


class _Watch(Observer):
    """Reads what some processes use while a run is at its speed.

    It does so on the cores of the other side: beside a thousand threads it would wait for its turn
    until the run is over.

    Args:
        seconds: how long the run sends.
        cores: those of the other side.
        processes: returns the ids of the processes.
        memory_at: when their memory is read: before anything is sent, so that what is recorded of
            it is not counted, or at the end of that part.

    Attributes:
        usage: what they used in a part of the run.
        seconds: how long that part was.
        memory: their memory, in bytes.
        count: how many they were then.
    """

    def __init__(
        self,
        seconds: float,
        cores: frozenset[int],
        processes: Callable[[], list[int]],
        memory_at: Literal["beginning", "end"],
    ) -> None:
        self.usage = Usage(0.0, 0)
        self.seconds = 0.0
        self.memory = 0
        self.count = 0
        self._begins, self._ends = seconds * _WINDOW_BEGINS, seconds * _WINDOW_ENDS
        self._cores = cores
        self._processes = processes
        self._memory_at = memory_at
        self._before: tuple[float, Probe] | None = None

    def progressed(self, progress: Progress) -> None:
        """Read at the beginning of the window, and at its end."""
        os.sched_setaffinity(0, self._cores)
        if progress.phase != "running" or self.seconds:
            return
        if self._memory_at == "beginning" and not self.count:
            self._read_memory(self._processes())
        if self._before is None and progress.elapsed >= self._begins:
            self._before = time.monotonic(), Probe(self._processes())
        elif self._before is not None and progress.elapsed >= self._ends:
            began, before = self._before
            processes = self._processes()
            self.usage = Probe(processes).since(before)
            self.seconds = time.monotonic() - began
            if self._memory_at == "end":
                self._read_memory(processes)

    def _read_memory(self, processes: Sequence[int]) -> None:
        self.memory, self.count = memory(processes), len(processes)


class _Samples:
    """The measurements of one size: by variant and name, one of each repeat.

    Attributes:
        unable: the variants that cannot be measured at this size here.
    """

    def __init__(self, size: int) -> None:
        self.unable: set[str] = set()
        self._size = size
        self._values: defaultdict[tuple[str, str], list[float]] = defaultdict(list)

    def take(self, variant: str, result: Result, watch: _Watch, idle_memory: float) -> None:
        """Take what a run came to.

        Args:
            variant: what was measured.
            result: of the run.
            watch: what was used in it.
            idle_memory: what the same processes need without connections, in bytes.
        """
        response = result.latency_us.response
        served = 1 - result.spread.starved / self._size
        echoes = result.totals.messages_per_second * watch.seconds
        found = {
            "messages": result.totals.messages_per_second,
            "p50": response.p50 / 1e6,
            "p99": response.p99 / 1e6,
            "CPU per echo": watch.usage.cpu_seconds / echoes,
            "switches per echo": watch.usage.switches / echoes,
            "served": served,
        }
        if self._size >= _FEWEST_FOR_MEMORY:
            used = max(0.0, watch.memory - idle_memory)
            found["memory per connection"] = used / (served * self._size)
        for name, value in found.items():
            self.add(variant, name, value)

    def add(self, variant: str, name: str, value: float) -> None:
        """Take a measurement."""
        self._values[variant, name].append(value)

    def figures(self) -> Iterator[Figure]:
        """Return the figures, variant by variant."""
        for (variant, name), values in self._values.items():
            yield Figure(name, tuple(values), _UNITS[name], variant, self._size)


def serve_in_each_way(quick: bool) -> Iterator[Figure]:
    """Measure each kind of server, with the hub engine as its client.

    Raises:
        CannotRunError: what the verdict compares cannot be measured here.
    """
    cores = _prepare()
    found = Figures()
    for size in _sizes(quick):
        samples = _Samples(size)
        for model in [*MODULES] * _repeats(quick):
            if model in samples.unable:
                continue
            with serving(model, cores.server) as (target, pid):
                idle = memory([pid])
                watch = _Watch(_seconds(quick), cores.client, partial(processes_of, pid), "end")
                result = _run(target, size, _CLIENTS["hub"], watch, cores.client, quick)
                if result is None:
                    samples.unable.add(model)
                else:
                    samples.take(model, result, watch, idle)
                    samples.add(model, "client-bound", float(result.generator.bound))
        for figure in samples.figures():
            found.add(figure)
            yield figure
    _check_comparable(found, _SERVERS)


def generate_in_each_way(quick: bool) -> Iterator[Figure]:
    """Measure each kind of client, against echo-server.

    Raises:
        CannotRunError: what the verdict compares cannot be measured here.
    """
    cores = _prepare()
    found = Figures()
    idle: dict[str, float] = {}
    for size in _sizes(quick):
        samples = _Samples(size)
        for name, client in [*_CLIENTS.items()] * _repeats(quick):
            if name in samples.unable:
                continue
            with serving("hub", cores.server) as (target, _):
                watch = _Watch(_seconds(quick), cores.server, generators, "beginning")
                result = _run(target, size, client, watch, cores.client, quick)
                if result is None:
                    samples.unable.add(name)
                else:
                    idle.setdefault(name, watch.memory / watch.count)
                    samples.take(name, result, watch, idle[name] * watch.count)
        for figure in samples.figures():
            found.add(figure)
            yield figure
    _check_comparable(found, _CLIENTS_COMPARED)


def _check_comparable(figures: Figures, variants: Sequence[str]) -> None:
    """Check that there is a size at which some variants were measured, their memory too.

    Raises:
        CannotRunError: there is none.
    """
    if max(_measured_sizes(figures, variants), default=0) < _FEWEST_FOR_MEMORY:
        raise CannotRunError(
            f"{', '.join(variants)} could not all be measured with {_FEWEST_FOR_MEMORY:,} "
            "connections or more"
        )


def _prepare() -> _Cores:
    """Make room for descriptors, and share the cores out."""
    check_supported()
    raise_descriptor_limit()
    return _Cores.here()


def _sizes(quick: bool) -> Sequence[int]:
    return QUICK_SIZES if quick else SIZES


def _seconds(quick: bool) -> float:
    return _QUICK_SECONDS if quick else _SECONDS


def _repeats(quick: bool) -> int:
    return 1 if quick else _REPEATS


def generators() -> list[int]:
    """Return the ids of this process's generators; not those of a server and a resource tracker."""
    return [one.pid for one in multiprocessing.active_children() if one.pid is not None]


def _run(
    target: str, size: int, client: _Client, watch: _Watch, cores: frozenset[int], quick: bool
) -> Result | None:
    """Echo in a closed loop on some connections; None if they could not all be opened or kept.

    Raises:
        LoadError: a reply was wrong.
    """
    # Its generators inherit this.
    os.sched_setaffinity(0, cores)
    seconds = _seconds(quick)
    plan = Plan(
        targets=(target,),
        engine=client.engine,
        processes=client.processes,
        connections=size,
        duration=seconds,
        # A connection that waits for a process of the pool is given up in the midst of the run: at
        # its end the processes become free.
        timeout=seconds / 2,
        # What does not fit the backlog is not established.
        connects_in_flight=_CONNECTS_IN_FLIGHT,
        reconnect=False,
    )
    try:
        result = run(plan, observer=watch)
    except InvalidValueError:
        # Not enough descriptors or ports.
        return None
    totals = result.totals
    wrong = [str(kind) for kind in MISMATCHES if kind in totals.errors]
    if wrong:
        raise LoadError(f"{target} sent back what it was not sent: {', '.join(wrong)}")
    # That some get no reply in time is a figure.
    broken = totals.connections_failed or totals.errors.keys() - _UNSERVED
    return None if broken or not watch.seconds or not totals.messages else result


def judge_servers(figures: Figures) -> Conclusion:
    """Greenlets must need less memory than threads and processes, and serve more.

    That they serve more with some numbers of connections only is a limit.
    """
    sizes = [size for size in _measured_sizes(figures, _SERVERS) if size >= _FEWEST_FOR_MEMORY]
    largest = sizes[-1]
    smaller = all(
        figures.median("memory per connection", "greenlets", size)
        < figures.median("memory per connection", other, size)
        for other in _BLOCKING
        for size in sizes
    )
    faster = [size for size in sizes if all(_is_behind(figures, one, size) for one in _BLOCKING)]
    statement = _joined(
        _rankings(figures, largest),
        _unserved(figures, largest),
        _advice(figures, _measured_sizes(figures, _SERVERS)),
        _bound(figures),
        _unmeasured(figures),
    )
    if not smaller:
        return Conclusion("does not hold", statement)
    return Conclusion("holds" if faster == sizes else "holds within a limit", statement)


def _is_behind(figures: Figures, other: str, size: int) -> bool:
    """True if a model makes clearly fewer messages than greenlets, or leaves connections out."""
    if figures.median("served", other, size) < _ALL <= figures.median("served", "greenlets", size):
        return True
    greenlets = figures.median("messages", "greenlets", size)
    return figures.median("messages", other, size) * _CLEARLY < greenlets


def judge_clients(figures: Figures) -> Conclusion:
    """Compare a generator of threads with one of greenlets and with the hub."""
    sizes = _measured_sizes(figures, _CLIENTS_COMPARED)
    largest = sizes[-1]
    better = [
        size
        for size in sizes
        if all(
            figures.median("messages", "hub", size)
            > figures.median("messages", other, size) * _CLEARLY
            for other in ("threads", "greenlets")
        )
    ]
    statement = _joined(
        _rankings(figures, largest),
        "A client of threads measures mainly itself." if largest in better else "",
        _unmeasured(figures),
    )
    if better == sizes:
        return Conclusion("does not hold", statement)
    if better:
        limit = max((size for size in sizes if size not in better), default=0)
        return Conclusion(
            "holds within a limit", f"{statement} Up to {_connections(limit)} they do as well."
        )
    return Conclusion("holds", statement)


def _connections(size: int) -> str:
    return format_count(size, "connection")


def _measured_sizes(figures: Figures, variants: Sequence[str]) -> list[int]:
    """The sizes at which all of some variants were measured, in ascending order."""
    measured = {(one.of, one.at) for one in figures.named("messages")}
    sizes = {size for _, size in measured if size is not None}
    return sorted(size for size in sizes if all((one, size) in measured for one in variants))


def _joined(*sentences: str) -> str:
    return " ".join(one for one in sentences if one)


def _rankings(figures: Figures, size: int) -> str:
    """All variants by what counts at a size, the best first."""
    parts = []
    for name in ("messages", "CPU per echo", "memory per connection"):
        found = [one for one in figures.named(name) if one.at == size]
        ranked = sorted(found, key=lambda one: one.median, reverse=name == "messages")
        values = ", ".join(f"{one.of} {written(one.median, one.unit)}" for one in ranked)
        if values:
            parts.append(f"{name}: {values}")
    return f"With {_connections(size)}: {'; '.join(parts)}."


def _unserved(figures: Figures, size: int) -> str:
    """Name the variants that have left connections out."""
    parts = [
        f"{one.of} served {written(one.median, 'share')} of these connections"
        for one in figures.named("served")
        if one.at == size and one.median < _ALL
    ]
    return sentence(f"{'; '.join(parts)}; the others waited in vain") if parts else ""


def _advice(figures: Figures, sizes: Sequence[int]) -> str:
    """What to choose when, by the figures."""
    largest = sizes[-1]
    said = []
    for model in _BLOCKING:
        served = [size for size in sizes if figures.median("served", model, size) >= _ALL]
        if served:
            most = served[-1]
            times = figures.median("messages", model, most) / figures.median(
                "messages", "greenlets", most
            )
            said.append(
                f"{model} serve{'s' * (model == 'fork')} up to {_connections(most)} without leaving"
                f" any out, at {times:.2f} times the messages of greenlets"
            )
        else:
            said.append(f"{model} leave{'s' * (model == 'fork')} connections out at every size")
    advice = sentence("; ".join(said))
    asked = {one.of: one.median for one in figures.named("messages") if one.at == largest}
    if "hub" in asked:
        advice += (
            " Where little is done between receiving and sending, callbacks on one set of "
            f"descriptors (the hub) make {asked['hub'] / asked['greenlets']:.1f} times the messages"
            " of greenlets. More cores take more processes, whatever the model."
        )
    return advice


def _bound(figures: Figures) -> str:
    bound = sorted({one.of for one in figures.named("client-bound") if one.median > 0.5})
    if not bound:
        return ""
    return f"The client was the limit with {', '.join(bound)}: these servers can do more."


def _unmeasured(figures: Figures) -> str:
    """Name what could not be measured."""
    measured = {(one.of, one.at) for one in figures.named("messages")}
    variants = dict.fromkeys(one.of for one in figures.named("messages"))
    sizes = sorted({size for _, size in measured if size is not None})
    missing = [
        f"{of} with {size:,}" for size in sizes for of in variants if (of, size) not in measured
    ]
    return f"Could not run here: {', '.join(missing)}." if missing else ""


CHAPTER = Chapter(
    name="comparison",
    title="The models side by side",
    experiments=(
        Experiment(
            name="servers",
            claim="Coroutines: high concurrency, high scalability, low cost.",
            method="The same echo service is written with a thread a connection, a fork a "
            "connection, a pre-forked pool of 100 processes, a greenlet a connection, an asyncio "
            "task a connection, and as echo-server's hub. Each is served on one core and tested "
            "by the hub engine on another, in a closed loop of 64 bytes a message, every byte "
            "checked; the models take turns. Memory is what the server's processes have, without "
            "the kernel's part.",
            measure=serve_in_each_way,
            judge=judge_servers,
            seconds=1800,
        ),
        Experiment(
            name="clients",
            claim="A thread for each connection is a way to test a server with 1,000 connections.",
            method="The tutorial's stress test is done by a thread a connection, by two processes "
            "of threads, by a greenlet a connection, and by the hub, each on the cores that "
            "echo-server, which has one core, leaves; closed loop, 64 bytes a message, every byte "
            "checked. Memory is that of the generators beyond what they need for one connection.",
            measure=generate_in_each_way,
            judge=judge_clients,
            seconds=1800,
        ),
    ),
)
