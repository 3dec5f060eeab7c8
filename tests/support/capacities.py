"""The answer of a search for a capacity."""

from __future__ import annotations

from echo_load.results.capacity import CapacityResult

CAPACITY = CapacityResult(
    asked="rate",
    rate=4230.0,
    connections=2,
    failed_at=4400.0,
    bound="slo",
    confirmed=True,
    precision=0.05,
    at_least=None,
    why="p99<5ms was crossed: 12 ms",
    advice=None,
    steps=[],
)
