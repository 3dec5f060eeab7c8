"""The number of users over time."""

from __future__ import annotations

import json
import sys

from support.processes import run

CODE = """
import locust, json, sys
from echo_load.plan.stages import parse_stages
from echo_load.swarm.shapes import StressShape, users_at

stages = parse_stages(sys.argv[1], rates=False) if sys.argv[1] else StressShape().stages()
print(json.dumps([users_at(stages, float(one)) for one in sys.argv[2:]]))
"""


def users_at(stages: str, *seconds: float) -> list[list[float] | None]:
    ended = run([sys.executable, "-c", CODE, stages, *map(str, seconds)])
    assert ended.returncode == 0, ended.stderr.decode()
    found: list[list[float] | None] = json.loads(ended.stdout)
    return found


def test_the_stress_shape_is_that_of_the_tutorial() -> None:
    assert users_at("", 0, 29.9, 30, 59.9, 60) == [
        [100, 1000.0],
        [100, 1000.0],
        [1000, 1000.0],
        [1000, 1000.0],
        None,
    ]


def test_the_number_of_users_follows_stages_and_ramps() -> None:
    assert users_at("0-100/10s,100/30s,100-40/30s", 0, 5, 10, 39, 55, 69.99, 70) == [
        [0, 10.0],
        [50, 10.0],
        [100, 1000.0],
        [100, 1000.0],
        [70, 2.0],
        [40, 2.0],
        None,
    ]
