"""Load shapes of locust: the number of users over time."""

from __future__ import annotations

from locust import LoadTestShape

from echo_load.plan.stages import StagePlan
from echo_load.swarm.settings import STRESS_STAGES, Settings

# Spawn rate in users per second if their number changes at once.
_AT_ONCE = 1000.0


class StagesShape(LoadTestShape):
    """The shape that `--stages` describes, whose levels are numbers of users."""

    def tick(self) -> tuple[int, float] | None:
        """Return the current number of users and the spawn rate; None at the end."""
        seconds: float = self.get_run_time()  # type: ignore[no-untyped-call]  # locust's
        return users_at(self.stages(), seconds)

    def stages(self) -> tuple[StagePlan, ...]:
        """Return the stages of `--stages`."""
        assert self.runner is not None
        options = self.runner.environment.parsed_options
        assert options is not None
        return Settings.of(options).stages


class StressShape(StagesShape):
    """The stress test of the tutorial, for your own locustfile: 100 users, then 1000 users."""

    def stages(self) -> tuple[StagePlan, ...]:
        """Return the two stages of 30 seconds each."""
        return STRESS_STAGES


def users_at(stages: tuple[StagePlan, ...], seconds: float) -> tuple[int, float] | None:
    """Return the number of users after a time in seconds, and the spawn rate; None at the end."""
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
