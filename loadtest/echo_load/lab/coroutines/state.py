"""The state that coroutines keep, and the order in which they run."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
from greenlet import getcurrent, greenlet

from echo_load.lab.experiment import Conclusion, Experiment, Measurement, Measurements
from echo_load.lab.notation import written


def keep_state(_quick: bool) -> Iterator[Measurement]:
    """Let a generator and a greenlet add up what they are sent, in a variable of their own."""

    def generate() -> Iterator[int]:
        total = 0
        for number in range(1, 11):
            total += number
            yield total

    expected = [sum(range(1, number + 1)) for number in range(1, 11)]
    yield Measurement(
        "sums that were right", (list(generate()) == expected,), "yes/no", "generator"
    )

    def add() -> None:
        total = 0
        for number in range(1, 11):
            total += number
            caller.switch(total)

    caller = getcurrent()
    adding = greenlet(add)
    right = [adding.switch() for _ in range(10)] == expected
    yield Measurement("sums that were right", (right,), "yes/no", "greenlet")


def conclude_state(measurements: Measurements) -> Conclusion:
    """Conclude that the claim holds if both continued with the value that they had."""
    kept = [one.of for one in measurements if one.median]
    return Conclusion.when(
        len(kept) == 2,
        f"{' and '.join(kept) or 'neither'} continued ten times from where it had stopped, with "
        "its sum intact.",
    )


_ORDER = [
    "Running in foo",
    "Explicit context to bar",
    "Explicit context switch to foo again",
    "Implicit context switch back to bar",
]


def switch_between_two(_quick: bool) -> Iterator[Measurement]:
    """Let foo and bar note their position in turn, as the tutorial does."""
    said: list[str] = []

    def foo() -> None:
        said.append("Running in foo")
        gevent.sleep(0)
        said.append("Explicit context switch to foo again")

    def bar() -> None:
        said.append("Explicit context to bar")
        gevent.sleep(0)
        said.append("Implicit context switch back to bar")

    gevent.joinall([gevent.spawn(foo), gevent.spawn(bar)])
    in_order = sum(one == other for one, other in zip(said, _ORDER, strict=True))
    yield Measurement("lines in the tutorial's order", (in_order,))


def conclude_order(measurements: Measurements) -> Conclusion:
    """Conclude that the claim holds if all four lines are in the tutorial's order."""
    in_order = measurements.median("lines in the tutorial's order")
    return Conclusion.when(
        in_order == len(_ORDER),
        f"{written(in_order, '')} of 4 lines came in the order in which the tutorial prints them.",
    )


COROUTINE_STATE = Experiment(
    "coroutine-state",
    "A coroutine goes on where it left, with the state that it had.",
    "A generator and a greenlet add up numbers in a variable of their own, and are left "
    "after each.",
    keep_state,
    conclude_state,
)


SWITCH_ORDER = Experiment(
    "switch-order",
    "gevent.sleep(0) switches to the other greenlet: foo, bar, foo, bar.",
    "The tutorial's foo and bar note their lines.",
    switch_between_two,
    conclude_order,
)
