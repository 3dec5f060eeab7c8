"""The speed at which processes exchange bytes by queues, pipes, shared memory and a manager."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from multiprocessing.shared_memory import SharedMemory
from typing import Any

from echo_load.errors import LoadError
from echo_load.lab.experiment import Conclusion, Experiment, Measurement, Measurements
from echo_load.lab.notation import written
from echo_load.lab.processes.children import (
    DEADLINE,
    check_ended_well,
    connected,
    context_of,
    join,
    managing,
    messages,
    start,
)

_SMALL = b"x" * 64
_LARGE = b"x" * (1 << 20)
_MANAGER = "Manager's dict"
# How often the reader of a queue checks that the writer is running, in seconds.
_LOOK_SECONDS = 0.1


def echo_queues(there: Any, back: Any) -> None:
    """Send back what comes through a queue, in another process, until None comes."""
    while (message := there.get()) is not None:
        back.put(message)


def echo_pipe(end: Connection) -> None:
    """Send back what comes through a pipe, in another process."""
    for message in messages(end):
        end.send_bytes(message)


def echo_memory(name: str, end: Connection) -> None:
    """Copy the first half of some shared memory to its second half, in another process.

    Args:
        name: of the shared memory.
        end: of a pipe through which each size comes, in bytes, and is answered once copied.
    """
    memory = SharedMemory(name)
    assert memory.buf is not None
    half = memory.size // 2
    for message in messages(end):
        size = int.from_bytes(message)
        memory.buf[half : half + size] = memory.buf[:size]
        end.send_bytes(b"done")
    memory.close()


def _measured(
    exchange: Callable[[bytes], bytes], quick: bool
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the round trips of small messages in seconds, and the throughputs of large ones."""
    exchange(_SMALL)  # its process has to start first
    latencies, throughputs = [], []
    for _ in range(3 if quick else 7):
        count = 200
        began = time.perf_counter()
        for _ in range(count):
            exchange(_SMALL)
        latencies.append((time.perf_counter() - began) / count)
        began = time.perf_counter()
        for _ in range(10):
            answer = exchange(_LARGE)
        throughputs.append(2 * 10 * len(_LARGE) / (time.perf_counter() - began))
        if answer != _LARGE:
            raise LoadError("what came back is not what was sent")
    return tuple(latencies), tuple(throughputs)


def exchange_by_each_way(quick: bool) -> Iterator[Measurement]:
    """Send bytes to another process and back: by queues, a pipe, shared memory and a manager."""
    context = context_of("spawn")
    with _queues(context) as through_queues:
        yield from _measurements("Queue", through_queues, quick)
    with connected(context, echo_pipe) as end:

        def through_pipe(message: bytes) -> bytes:
            end.send_bytes(message)
            return end.recv_bytes()

        yield from _measurements("Pipe", through_pipe, quick)
    with _shared_memory(context) as through_memory:
        yield from _measurements("shared memory and Pipe", through_memory, quick)
    with managing(context) as manager:
        numbered = manager.dict()
        listed = manager.list([b""])

        def through_dict(message: bytes) -> bytes:
            numbered[0] = message
            answer: bytes = numbered[0]
            return answer

        def through_list(message: bytes) -> bytes:
            listed[0] = message
            answer: bytes = listed[0]
            return answer

        yield from _measurements(_MANAGER, through_dict, quick)
        yield from _measurements("Manager's list", through_list, quick)


@contextmanager
def _queues(context: SpawnContext) -> Iterator[Callable[[bytes], bytes]]:
    """Yield a function that sends a message to another process and back by two queues."""
    there, back = context.Queue(), context.Queue()
    process = context.Process(target=echo_queues, args=(there, back), daemon=True)
    start(process)

    def through_queues(message: bytes) -> bytes:
        there.put(message)
        deadline = time.monotonic() + DEADLINE
        while True:
            running = process.is_alive()
            try:
                answer: bytes = back.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                if not running or time.monotonic() > deadline:
                    check_ended_well(process)
                    raise LoadError("a process ended too early") from None
            else:
                return answer

    yield through_queues
    there.put(None)
    join(process)


@contextmanager
def _shared_memory(context: SpawnContext) -> Iterator[Callable[[bytes], bytes]]:
    """Yield a function that sends a message to another process and back by shared memory."""
    memory = SharedMemory(create=True, size=2 * len(_LARGE))
    shared = memory.buf
    assert shared is not None
    half = memory.size // 2
    try:
        with connected(context, echo_memory, memory.name) as end:

            def through_memory(message: bytes) -> bytes:
                shared[: len(message)] = message
                end.send_bytes(len(message).to_bytes(4))
                end.recv_bytes()
                return bytes(shared[half : half + len(message)])

            yield through_memory
    finally:
        memory.close()
        memory.unlink()


def _measurements(
    way: str, exchange: Callable[[bytes], bytes], quick: bool
) -> Iterator[Measurement]:
    latencies, throughputs = _measured(exchange, quick)
    yield Measurement("round trip of 64 bytes", latencies, "s", way)
    yield Measurement("throughput of 1 MiB", throughputs, "B/s", way)


def conclude_ways(measurements: Measurements) -> Conclusion:
    """Conclude that the claim holds if a queue is the fastest way by both measures."""
    latency = {one.of: one.median for one in measurements.named("round trip of 64 bytes")}
    throughput = {one.of: one.median for one in measurements.named("throughput of 1 MiB")}
    quickest = min(latency, key=latency.__getitem__)
    widest = max(throughput, key=throughput.__getitem__)
    return Conclusion.when(
        quickest == widest == "Queue",
        f"a queue takes {written(latency['Queue'], 's')} for a round trip and moves "
        f"{written(throughput['Queue'], 'B/s')}; the fastest round trip is that of {quickest}, "
        f"{written(latency[quickest], 's')}, and the highest throughput that of {widest}, "
        f"{written(throughput[widest], 'B/s')}. A manager's dict, which is in a server process, "
        f"takes {written(latency[_MANAGER], 's')} to write and read.",
    )


PROCESS_EXCHANGE = Experiment(
    "process-exchange",
    "As processes do not share memory, only a queue will do.",
    "Messages of 64 bytes and of 1 MiB go to another process and back by two Queues, a "
    "Pipe, and shared memory with a Pipe to say when; a Manager's dict and list are written"
    " and read.",
    exchange_by_each_way,
    conclude_ways,
)
