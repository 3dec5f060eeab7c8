"""The processor time and lateness of generators in each second of a test."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypedDict

from echo_load.measure.distributions import Measured
from echo_load.measure.histogram import LatencyHistogram
from echo_load.runner.selfcheck import Usage


class GeneratorFigures(TypedDict):
    """The fields of a second of a result that are about the generators."""

    generator_cores: float | None
    late_p99_us: float | None
    lag_p99_us: float | None


@dataclass(slots=True)
class _Second:
    """The measurements of one second.

    Attributes:
        usages: the seconds and the processor time of each generator.
        lateness: delays in sending messages that were due and had a free connection.
        hub_lag: delays of the event loops.
    """

    usages: dict[int, tuple[float, float]] = field(default_factory=dict)
    lateness: LatencyHistogram = field(default_factory=LatencyHistogram)
    hub_lag: LatencyHistogram = field(default_factory=LatencyHistogram)


class GeneratorSeconds:
    """The processor time and the delays of the generators, sorted into seconds."""

    def __init__(self) -> None:
        self._before: defaultdict[int, Usage] = defaultdict(Usage)
        self._seconds: defaultdict[int, _Second] = defaultdict(_Second)

    def add(
        self, second: int | None, generator: int, usage: Usage, measured: Iterable[Measured]
    ) -> None:
        """Add the measurements of a generator since its last update.

        Args:
            second: the second to which they belong; None before the first stage.
            generator: number of the generator.
            usage: what it has used since it was told to start, or was created if it was not yet.
            measured: its distributions since its last update.
        """
        before, self._before[generator] = self._before[generator], usage
        if second is None:
            return
        if usage.seconds < before.seconds:
            # The measurement begins anew when a generator is told to start.
            before = Usage()
        here = self._seconds[second]
        seconds, cpu_seconds = here.usages.get(generator, (0.0, 0.0))
        here.usages[generator] = (
            seconds + usage.seconds - before.seconds,
            cpu_seconds + usage.cpu_seconds - before.cpu_seconds,
        )
        for one in measured:
            here.lateness.merge(one.lateness)
            here.hub_lag.merge(one.hub_lag)

    def take(self, second: int) -> GeneratorFigures:
        """Return the figures of a second, and forget its measurements."""
        here = self._seconds.pop(second, _Second())
        shares = [cpu / seconds for seconds, cpu in here.usages.values() if seconds > 0]
        return {
            "generator_cores": round(sum(shares), 4) if shares else None,
            "late_p99_us": _p99_us(here.lateness),
            "lag_p99_us": _p99_us(here.hub_lag),
        }


def _p99_us(delays: LatencyHistogram) -> float | None:
    return delays.percentiles_us([99])[0] if delays.count else None
