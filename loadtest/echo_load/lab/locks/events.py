"""Events, by which threads act together."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from echo_load.lab.experiment import (
    Conclusion,
    Experiment,
    Measurement,
    Measurements,
    Verdict,
)
from echo_load.lab.notation import written

# The longest wait in seconds.
_DEADLINE = 10.0


class TrafficLight:
    """A light that is green, then yellow, then red; cars may go while its event is set.

    Attributes:
        may_go: set while it is green or yellow.
        crossed: how many cars have crossed.
        crossed_on_red: how many of these on red.
    """

    def __init__(self) -> None:
        self.may_go = threading.Event()
        self.crossed = self.crossed_on_red = 0
        self._over = False
        self._changing = threading.Lock()
        self._counting = threading.Lock()

    def run(self, rounds: int) -> None:
        """Change the light some times."""
        for _ in range(rounds):
            self.may_go.set()
            time.sleep(0.015)
            with self._changing:
                self.may_go.clear()
            time.sleep(0.01)
        self._over = True
        self.may_go.set()

    def drive(self) -> None:
        """Check the light, start the engine, and cross; the light may have changed meanwhile."""
        while self.may_go.wait(_DEADLINE) and not self._over:
            time.sleep(0.001)
            self._cross()

    def drive_carefully(self) -> None:
        """Start the engine, then check and cross in one step, in which the light cannot change."""
        while self.may_go.wait(_DEADLINE) and not self._over:
            time.sleep(0.001)
            with self._changing:
                if self.may_go.is_set():
                    self._cross()

    def _cross(self) -> None:
        with self._counting:
            self.crossed += 1
            self.crossed_on_red += not self.may_go.is_set()


def cross_at_the_light(quick: bool) -> Iterator[Measurement]:
    """Let three cars cross at a traffic light, as the tutorial does and with a lock."""
    for kind in ("event alone", "event and lock"):
        light = TrafficLight()
        drive = light.drive if kind == "event alone" else light.drive_carefully
        cars = [threading.Thread(target=drive) for _ in range(3)]
        for car in cars:
            car.start()
        light.run(rounds=10 if quick else 50)
        for car in cars:
            car.join()
        yield Measurement("crossings", (light.crossed,), "", kind)
        yield Measurement("on red", (light.crossed_on_red,), "", kind)


def conclude_light(measurements: Measurements) -> Conclusion:
    """Conclude that the claim holds if cars crossed, and none on red.

    That it takes a lock is a limit.
    """
    kinds = ("event alone", "event and lock")
    alone, locked = (measurements.median("on red", kind) for kind in kinds)
    crossings, careful = (measurements.median("crossings", kind) for kind in kinds)
    verdict: Verdict = "does not hold"
    if crossings and careful and not locked:
        verdict = "holds within a limit" if alone else "holds"
    return Conclusion(
        verdict,
        f"with the event alone {written(alone, '')} of {written(crossings, '')} crossings were on "
        f"red, with a lock around the check and the crossing {written(locked, '')} of "
        f"{written(careful, '')}: an event tells what was true when it was checked, not what is "
        "true a moment later.",
    )


EVENT = Experiment(
    "event",
    "Cars stop at red and go at green: an event lets threads act together.",
    "A light is green and yellow for 15 ms and red for 10 ms; three cars wait for its "
    "event, need 1 ms to start, and cross.",
    cross_at_the_light,
    conclude_light,
)
