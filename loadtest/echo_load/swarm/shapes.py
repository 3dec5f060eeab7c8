"""Shapes: the number of users over a test."""

from __future__ import annotations

from locust import LoadTestShape

from echo_load.plan.stages import StagePlan
from echo_load.swarm.settings import STRESS_STAGES, Settings

# Users per second where the number is to change at once.
_AT_ONCE = 1000.0


class StagesShape(LoadTestShape):
    """The stages of `--stages`, parsed as by `echo-load run`, as numbers of users."""

    def tick(self) -> tuple[int, float] | None:
        """The number of users wanted now, and the spawn rate; None at the end."""
        seconds: float = self.get_run_time()  # type: ignore[no-untyped-call]  # locust's
        return users_at(self.stages(), seconds)

    def stages(self) -> tuple[StagePlan, ...]:
        """The stages of `--stages`."""
        assert self.runner is not None
        options = self.runner.environment.parsed_options
        assert options is not None
        return Settings.of(options).stages


class StressShape(StagesShape):
    """The tutorial's stress test, for a locustfile of your own: 100 users, then 1000."""

    def stages(self) -> tuple[StagePlan, ...]:
        """Half a minute each."""
        return STRESS_STAGES


def users_at(stages: tuple[StagePlan, ...], seconds: float) -> tuple[int, float] | None:
    """Return the number of users at this time since the start, and how many start per second."""
    begin = 0.0
    for stage in stages:
        assert stage.duration is not None
        if seconds < begin + stage.duration:
            share = (seconds - begin) / stage.duration
            users = stage.first + (stage.last - stage.first) * share
            slope = abs(stage.last - stage.first) / stage.duration
            return round(users), max(slope, 1.0) if slope else _AT_ONCE
        begin += stage.duration
    return None
