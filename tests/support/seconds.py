"""Seconds of a result."""

from __future__ import annotations

from typing import Any

from echo_load.results.result import Second


def second(number: int, **changes: Any) -> Second:
    times = dict.fromkeys(("p50_us", "p90_us", "p99_us", "p99_9_us", "max_us"), 1000.0)
    return Second(
        **{
            "second": number,
            "repeat": 1,
            "stage": "stage",
            "connections": 3,
            "messages": 100,
            "bytes_sent": 1,
            "bytes_received": 1,
            "errors": {},
            **times,
            **changes,
        }
    )
