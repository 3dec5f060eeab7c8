"""Verdicts are computed from the measurements: forged ones make each of them flip."""

from __future__ import annotations

import pytest

from echo_load.lab.catalogue import chapters
from echo_load.lab.experiment import Measurement, Measurements

EXPERIMENTS = {one.name: one for chapter in chapters() for one in chapter.experiments}
HOLDS, LIMIT, DOES_NOT = "holds", "holds within a limit", "does not hold"

Forged = list[tuple[str, str, float]]


def forged(values: Forged) -> Measurements:
    """Measurements of a name, a variant and a value each."""
    return Measurements(Measurement(name, (value,), of=of) for name, of, value in values)


def started(cost: float, alive: float) -> Forged:
    return [("a start", "", cost), ("started", "", 1000), ("alive at once", "", alive)]


def named(plain: float, with_function: float, kept: float = 1) -> Forged:
    return [
        ("named Thread-N", "", plain),
        ("named Thread-N (function)", "", with_function),
        ("keeps the name it is given", "", kept),
    ]


def joined(after: float, alive: float, finished: float) -> Forged:
    return [
        ("join(0.05) returned after", "", after),
        ("alive after that", "", alive),
        ("finished its work later", "", finished),
    ]


def took(together: float, in_turn: float) -> Forged:
    return [
        ("ten threads took", "all started, then joined", together),
        ("ten threads took", "each joined before the next", in_turn),
    ]


def styles(target: float, subclass: float, stays: float, own: float = 1) -> Forged:
    return [
        ("ran in a thread of its own", "target", 1),
        ("ran in a thread of its own", "subclass", own),
        ("start and join", "target", target),
        ("start and join", "subclass", subclass),
        ("run() called directly stays in the calling thread", "", stays),
    ]


def daemons(daemon: float, other: float) -> Forged:
    return [
        ("the thread finished its work", "daemon", daemon),
        ("the thread finished its work", "not a daemon", other),
        ("the program lasted", "not a daemon", 0.321),
    ]


def timers(after: float, fired: float, cancelled: float) -> Forged:
    return [
        ("fired after", "", after),
        ("times that each fired", "", fired),
        ("times that a cancelled one fired", "", cancelled),
    ]


def lost(at_once: float, in_steps: float, locked: float, with_call: float = 0) -> Forged:
    return [
        ("lost", "+= 1, no lock", 0),
        ("lost", "+= 1 many times, no lock", at_once),
        ("lost", "+= one(), no lock", with_call),
        ("lost", "read, pause, write, no lock", in_steps),
        ("lost", "+= 1, lock", 0),
        ("lost", "+= 1 many times, lock", 0),
        ("lost", "+= one(), lock", 0),
        ("lost", "read, pause, write, lock", locked),
    ]


def nested(lock: float, rlock: float) -> Forged:
    return [
        ("taken a second time", "Lock", lock),
        ("taken a second time", "RLock", rlock),
        ("waited", "Lock", 0.123),
    ]


def inside(most: float, raised: float) -> Forged:
    return [("most inside at once", "", most), ("ValueError at one release too many", "", raised)]


def crossed(alone: float, locked: float, crossings: float = 400, careful: float = 380) -> Forged:
    return [
        ("crossings", "event alone", crossings),
        ("crossings", "event and lock", careful),
        ("on red", "event alone", alone),
        ("on red", "event and lock", locked),
    ]


def ordered(first: float, last: float, lowest: float) -> Forged:
    name = "of ten in the order claimed"
    return [(name, "Queue", first), (name, "LifoQueue", last), (name, "PriorityQueue", lowest)]


def bounded(full: float, empty: float, went_on: float) -> Forged:
    return [
        ("Full after", "", full),
        ("a put went on once an item had been taken", "", went_on),
        ("Empty after", "", empty),
    ]


def queue_joined(done: float, raised: float) -> Forged:
    return [
        ("tasks", "", 50),
        ("done when join returned", "", done),
        ("ValueError at one task_done too many", "", raised),
    ]


def starts(thread: float, fork: float) -> Forged:
    name = "start and join"
    return [(name, "thread", thread), (name, "fork", fork), (name, "spawn", 0.1)]


def seen(thread: float, fork: float) -> Forged:
    name = "the parent sees the change"
    return [(name, "thread", thread), (name, "fork", fork)]


def exchanged(queue: float, pipe: float, most: float) -> Forged:
    return [
        ("round trip of 64 bytes", "Queue", queue),
        ("round trip of 64 bytes", "Pipe", pipe),
        ("round trip of 64 bytes", "Manager's dict", 5e-5),
        ("throughput of 1 MiB", "Queue", 1e9),
        ("throughput of 1 MiB", "Pipe", most),
    ]


def managed(keys: float, pids: float) -> Forged:
    return [
        ("the dict has both keys", "", keys),
        ("different process ids in the list", "", pids),
    ]


def torn(bare: float, locked: float, at_once: float) -> Forged:
    name = "lines not whole"
    return [
        (name, "in pieces, no lock", bare),
        (name, "in pieces, lock", locked),
        (name, "in one write, no lock", at_once),
    ]


def pooled(back: float, right: float, processes: float) -> Forged:
    return [
        ("all ten were done after", "", 0.043),
        ("results called back", "", back),
        ("of them right", "", right),
        ("processes that worked", "", processes),
        ("called back in a thread of the pool's", "", 1),
    ]


def ended(both: float, neither: float) -> Forged:
    name = "tasks done of ten"
    return [(name, "close and join", both), (name, "neither", neither)]


def kept(generator: float, greenlet: float) -> Forged:
    name = "sums that were right"
    return [(name, "generator", generator), (name, "greenlet", greenlet)]


def switched(bare: float, by_hub: float, thread: float) -> Forged:
    name = "a switch"
    return [
        (name, "greenlet", bare),
        (name, "greenlet by gevent's hub", by_hub),
        (name, "thread", thread),
        (name, "process", 2e-5),
    ]


def updated(without: float, within: float, guarded: float) -> Forged:
    name = "updates lost"
    return [
        (name, "no switch within", without),
        (name, "a switch within", within),
        (name, "a switch within, semaphore", guarded),
    ]


def fetched(patched: float, other: float) -> Forged:
    name = "three pages took"
    return [(name, "patched", patched), (name, "not patched", other)]


def ticked(blocked: float, in_pool: float) -> Forged:
    return [
        ("ticks meanwhile", "blocking call", blocked),
        ("ticks meanwhile", "in gevent's thread pool", in_pool),
        ("the monitor thread names the function", "", 1),
    ]


def cores(one: float, two: float) -> Forged:
    return [
        ("cores used", "one process", 0.8),
        ("cores asked for", "one process", one),
        ("cores used", "two processes", 1.6),
        ("cores asked for", "two processes", two),
    ]


CASES: list[tuple[str, Forged, str, str]] = [
    ("thread-start", started(5e-5, 1000), HOLDS, "50 µs"),
    ("thread-start", started(5e-5, 999), DOES_NOT, "999 threads"),
    ("thread-start", started(0.06, 1000), DOES_NOT, "60 ms"),
    ("thread-names", named(10, 0), HOLDS, "10 of 10"),
    ("thread-names", named(0, 10), LIMIT, "10 of 10"),
    ("thread-names", named(0, 3), DOES_NOT, "3 of 10"),
    ("thread-names", named(10, 0, kept=0), DOES_NOT, "did not keep"),
    ("thread-join", joined(0.0501, 1, 1), HOLDS, "50.1 ms"),
    ("thread-join", joined(0.0501, 0, 1), DOES_NOT, "did not go on"),
    ("thread-join", joined(0.01, 1, 1), DOES_NOT, "10 ms"),
    ("thread-join-order", took(0.051, 0.5), DOES_NOT, "51 ms"),
    ("thread-join-order", took(0.49, 0.5), HOLDS, "490 ms"),
    ("thread-styles", styles(4e-5, 5e-5, 1), HOLDS, "40 µs"),
    ("thread-styles", styles(4e-5, 9e-5, 1), DOES_NOT, "90 µs"),
    ("thread-styles", styles(4e-5, 4e-5, 0), DOES_NOT, "left the calling thread"),
    ("thread-styles", styles(4e-5, 4e-5, 1, own=0), DOES_NOT, "thread of its own: target;"),
    ("thread-daemon", daemons(0, 1), HOLDS, "321 ms"),
    ("thread-daemon", daemons(1, 1), DOES_NOT, "100 %"),
    ("thread-daemon", daemons(0, 0), DOES_NOT, "0 %"),
    ("timer", timers(0.0512, 1, 0), HOLDS, "51.2 ms"),
    ("timer", timers(0.0312, 1, 0), DOES_NOT, "31.2 ms"),
    ("timer", timers(0.0512, 2, 0), DOES_NOT, "51.2 ms"),
    ("timer", timers(9.0, 1, 0), DOES_NOT, "9 s"),
    ("timer", timers(0.05, 0, 0)[1:], DOES_NOT, "none"),
    ("timer", timers(0.0512, 1, 1), DOES_NOT, "fired 1 time"),
    ("lock", lost(0, 0, 0), HOLDS, "0 %"),
    ("lock", lost(0, 0.87, 0), LIMIT, "87 %"),
    ("lock", lost(0, 0, 0, with_call=0.34), LIMIT, "`+= one()` 34 %"),
    ("lock", lost(0.03, 0.87, 0), DOES_NOT, "3 %"),
    ("lock", lost(0, 0, 0.5), DOES_NOT, "50 %"),
    ("rlock", nested(0, 1), HOLDS, "123 ms"),
    ("rlock", nested(1, 1), DOES_NOT, "did so too"),
    ("rlock", nested(0, 0), DOES_NOT, "could not take"),
    ("semaphore", inside(5, 1), HOLDS, "at most 5"),
    ("semaphore", inside(6, 1), DOES_NOT, "at most 6"),
    ("semaphore", inside(5, 0), DOES_NOT, "went unnoticed"),
    ("event", crossed(0, 0), HOLDS, "0 of 400"),
    ("event", crossed(30, 0), LIMIT, "30 of 400"),
    ("event", crossed(30, 2), DOES_NOT, "crossing 2 of 380"),
    ("event", crossed(0, 0, 0, 0), DOES_NOT, "0 of 0"),
    ("event", crossed(30, 0, careful=0), DOES_NOT, "crossing 0 of 0"),
    ("queue-orders", ordered(10, 10, 10), HOLDS, "Queue 10 of 10"),
    ("queue-orders", ordered(10, 10, 9), DOES_NOT, "PriorityQueue 9 of 10"),
    ("queue-bounds", bounded(0.0501, 0.0502, 1), HOLDS, "50.2 ms"),
    ("queue-bounds", bounded(0.0501, 0.001, 1), DOES_NOT, "1 ms"),
    ("queue-bounds", bounded(0.0501, 0.0502, 0), DOES_NOT, "50.1 ms"),
    ("queue-bounds", bounded(0.0501, 0.0502, 1)[1:], DOES_NOT, "Full was not raised"),
    ("queue-bounds", bounded(0.0501, 0.0502, 1)[:-1], DOES_NOT, "Empty was not raised"),
    ("queue-join", queue_joined(50, 1), HOLDS, "50 of 50"),
    ("queue-join", queue_joined(49, 1), DOES_NOT, "49 of 50"),
    ("queue-join", queue_joined(50, 0), DOES_NOT, "went unnoticed"),
    ("process-start", starts(8e-5, 2e-3), HOLDS, "25 to 1250 times"),
    ("process-start", starts(8e-3, 2e-3), DOES_NOT, "2 ms"),
    ("process-memory", seen(1, 0), HOLDS, "0 changed it"),
    ("process-memory", seen(1, 1), DOES_NOT, "1 changed it"),
    ("process-memory", seen(0, 0), DOES_NOT, "was not in"),
    ("process-exchange", exchanged(9e-5, 2e-5, 2e9), DOES_NOT, "Pipe, 20 µs"),
    ("process-exchange", exchanged(1e-5, 2e-5, 2e8), HOLDS, "Queue, 10 µs"),
    ("manager", managed(1, 10), HOLDS, "10 of 10"),
    ("manager", managed(1, 9), DOES_NOT, "9 of 10"),
    ("manager", managed(0, 10), DOES_NOT, "not what was written"),
    ("process-lock", torn(0.24, 0, 0.1), HOLDS, "10 %"),
    ("process-lock", torn(0.24, 0, 0), LIMIT, "24 %"),
    ("process-lock", torn(0, 0, 0), DOES_NOT, "0 %"),
    ("process-lock", torn(0.24, 0.01, 0), DOES_NOT, "1 %"),
    ("pool", pooled(10, 10, 5), HOLDS, "5 processes"),
    ("pool", pooled(10, 9, 5), DOES_NOT, "9 of 10"),
    ("pool", pooled(10, 10, 6), DOES_NOT, "6 processes"),
    ("pool-join", ended(10, 0), HOLDS, "neither 0"),
    ("pool-join", ended(10, 10), DOES_NOT, "neither 10"),
    ("pool-join", ended(9, 0), DOES_NOT, "9 of 10"),
    ("coroutine-state", kept(1, 1), HOLDS, "generator and greenlet"),
    ("coroutine-state", kept(1, 0), DOES_NOT, "generator continued"),
    ("switch-order", [("lines in the tutorial's order", "", 4)], HOLDS, "4 of 4"),
    ("switch-order", [("lines in the tutorial's order", "", 2)], DOES_NOT, "2 of 4"),
    ("switch-cost", switched(4e-7, 2.5e-6, 7e-6), HOLDS, "0.4 µs"),
    ("switch-cost", switched(4e-7, 6e-6, 7e-6), LIMIT, "6 µs"),
    ("switch-cost", switched(6e-6, 6e-6, 7e-6), DOES_NOT, "7 µs"),
    ("no-lock", updated(0, 0, 0), HOLDS, "0 %"),
    ("no-lock", updated(0, 0.99, 0), LIMIT, "99 %"),
    ("no-lock", updated(0.01, 0.99, 0), DOES_NOT, "1 %"),
    ("no-lock", updated(0, 0.99, 0.2), DOES_NOT, "20 %"),
    ("monkey-patching", fetched(0.21, 0.46), HOLDS, "210 ms"),
    ("monkey-patching", fetched(0.44, 0.46), DOES_NOT, "440 ms"),
    ("monkey-patching", fetched(0.21, 0.22), DOES_NOT, "220 ms"),
    ("blocking", ticked(0, 58), HOLDS, "0 times"),
    ("blocking", ticked(50, 58), DOES_NOT, "50 times"),
    ("blocking", ticked(0, 1), DOES_NOT, "1 time."),
    ("cores", cores(1.0, 2.0), HOLDS, "1.6 in two"),
    ("cores", cores(1.4, 2.0), DOES_NOT, "1.4 and 2"),
    ("cores", cores(1.0, 1.0), DOES_NOT, "1 and 1"),
]


@pytest.mark.parametrize(("name", "values", "verdict", "said"), CASES)
def test_a_verdict_follows_its_figures(name: str, values: Forged, verdict: str, said: str) -> None:
    concluded = EXPERIMENTS[name].conclude(forged(values))
    assert (concluded.verdict, said in concluded.statement) == (verdict, True), concluded


def test_every_verdict_can_flip() -> None:
    flipped = {name for name, *_ in CASES} | {"greenlets", "servers", "clients"}
    assert flipped == set(EXPERIMENTS)
    assert all(
        len({verdict for one, _, verdict, _ in CASES if one == name}) > 1 for name, *_ in CASES
    )


@pytest.mark.parametrize(
    ("count", "memory", "start", "verdict"),
    [
        (100_000, 8000, 2e-5, HOLDS),
        (1000, 8000, 2e-5, DOES_NOT),
        (100_000, 64_000, 2e-5, DOES_NOT),
        (100_000, 8000, 2e-3, DOES_NOT),
    ],
)
def test_many_greenlets(count: int, memory: float, start: float, verdict: str) -> None:
    measurements = Measurements(
        [
            Measurement("start", (start,), "s", "greenlet", count),
            Measurement("memory", (memory,), "B", "greenlet", count),
            Measurement("start", (5e-5,), "s", "thread", 1000),
            Measurement("memory", (11_000,), "B", "thread", 1000),
        ]
    )
    concluded = EXPERIMENTS["greenlets"].conclude(measurements)
    assert (concluded.verdict, f"{count:,} greenlets" in concluded.statement) == (verdict, True)


Three = tuple[float, float, float]


def served(messages: Three, memory: Three, shares: Three = (1, 1, 1)) -> Measurements:
    """Measurements of greenlets, threads and forks with 1,000 connections."""
    measurements = Measurements()
    models = ("greenlets", "threads", "fork")
    for of, rate, size, share in zip(models, messages, memory, shares, strict=True):
        measurements.add(Measurement("served", (share,), "share", of, 1000))
        measurements.add(Measurement("messages", (rate,), "1/s", of, 1000))
        measurements.add(Measurement("memory per connection", (size,), "B", of, 1000))
    return measurements


@pytest.mark.parametrize(
    ("measurements", "verdict", "said"),
    [
        (served((30e3, 20e3, 25e3), (8e3, 4e4, 4e5)), HOLDS, "greenlets 30,000/s, fork 25,000/s"),
        (served((30e3, 20e3, 60e3), (8e3, 4e4, 4e5)), LIMIT, "fork 60,000/s, greenlets 30,000/s"),
        (
            served((30e3, 20e3, 60e3), (8e3, 4e4, 4e5), (1, 1, 0.17)),
            *(HOLDS, "Fork served 17 % of these connections; the others waited"),
        ),
        (served((30e3, 20e3, 25e3), (8e4, 4e4, 4e5)), DOES_NOT, "threads 39.1 KiB, greenlets"),
    ],
)
def test_servers(measurements: Measurements, verdict: str, said: str) -> None:
    concluded = EXPERIMENTS["servers"].conclude(measurements)
    assert (concluded.verdict, said in concluded.statement) == (verdict, True), concluded


def test_what_servers_could_not_do_is_said() -> None:
    measurements = served((30e3, 20e3, 25e3), (8e3, 4e4, 4e5))
    measurements.add(Measurement("messages", (9e3,), "1/s", "prefork", 1))
    measurements.add(Measurement("messages", (9e3,), "1/s", "prefork", 1000))
    measurements.add(Measurement("served", (0.1,), "share", "prefork", 1000))
    measurements.add(Measurement("client-bound", (1.0,), "share", "greenlets", 1000))
    statement = EXPERIMENTS["servers"].conclude(measurements).statement
    assert "Prefork served 10 % of these connections; the others waited in vain." in statement
    assert (
        "Threads serve up to 1,000 connections without leaving any out, at 0.67 times" in statement
    )
    assert "Could not run here: greenlets with 1, threads with 1, fork with 1" in statement
    assert "The client was the limit with greenlets" in statement


def generated(few: Three, many: Three) -> Measurements:
    """Measurements of hub, greenlets and threads with 1 and with 1,000 connections."""
    return Measurements(
        Measurement("messages", (rate,), "1/s", of, size)
        for size, rates in ((1, few), (1000, many))
        for of, rate in zip(("hub", "greenlets", "threads"), rates, strict=True)
    )


@pytest.mark.parametrize(
    ("measurements", "verdict", "said"),
    [
        (generated((9e3, 9e3, 9e3), (9e4, 9e4, 9e4)), HOLDS, "hub 90,000/s"),
        (
            generated((9e3, 9e3, 9e3), (9e4, 3e4, 2e4)),
            LIMIT,
            "at 1 connection; at 1,000 connections threads make 0.22 times",
        ),
        (
            generated((9e3, 5e3, 5e3), (9e4, 3e4, 2e4)),
            DOES_NOT,
            "A client of threads measures mainly itself",
        ),
    ],
)
def test_clients(measurements: Measurements, verdict: str, said: str) -> None:
    concluded = EXPERIMENTS["clients"].conclude(measurements)
    assert (concluded.verdict, said in concluded.statement) == (verdict, True), concluded
