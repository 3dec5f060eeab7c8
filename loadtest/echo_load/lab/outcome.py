"""The outcomes of experiments, and their JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from echo_load.lab.experiment import Chapter, Experiment, Measurements, Verdict
from echo_load.results.result import Machine

Status = Verdict | Literal["cannot run here", "broke", "interrupted"]
STATUSES: tuple[Status, ...] = (
    *("holds", "holds within a limit", "does not hold"),
    *("cannot run here", "broke", "interrupted"),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of an experiment.

    Attributes:
        chapter: its chapter.
        experiment: the experiment.
        measurements: measurements, also of an experiment that did not end.
        status: verdict, or the reason why there is none.
        statement: reason for the verdict, or the error.
        seconds: duration in seconds.
    """

    chapter: Chapter
    experiment: Experiment
    measurements: Measurements
    status: Status
    statement: str
    seconds: float


def summary(outcomes: Sequence[Outcome]) -> str:
    """Count the outcomes by their status: `20 hold, 3 hold within a limit, 1 broke`."""
    counts = {status: sum(one.status == status for one in outcomes) for status in STATUSES}
    parts = [
        f"{count} {status if count == 1 else _PLURALS.get(status, status)}"
        for status, count in counts.items()
        if count
    ]
    return ", ".join(parts) or "nothing was measured"


_PLURALS: dict[Status, str] = {
    "holds": "hold",
    "holds within a limit": "hold within a limit",
    "does not hold": "do not hold",
    "interrupted": "were interrupted",
}


def to_json(outcomes: Sequence[Outcome], started_at: str, *, quick: bool) -> bytes:
    """Write outcomes as one JSON object.

    Args:
        outcomes: in the order in which they were made.
        started_at: when the first began, in ISO 8601.
        quick: whether the experiments were.
    """
    content = {
        "machine": Machine.here(),
        "started_at": started_at,
        "quick": quick,
        "experiments": [_as_object(one) for one in outcomes],
    }
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


def _as_object(outcome: Outcome) -> dict[str, object]:
    return {
        "chapter": outcome.chapter.name,
        "name": outcome.experiment.name,
        "claim": outcome.experiment.claim,
        "method": outcome.experiment.method,
        "verdict": outcome.status,
        "statement": outcome.statement,
        "seconds": round(outcome.seconds, 3),
        "figures": [
            {
                "name": measurement.name,
                "of": measurement.of,
                "at": measurement.at,
                "unit": measurement.unit,
                "median": measurement.median,
                "low": measurement.low,
                "high": measurement.high,
                "values": measurement.values,
            }
            for measurement in outcome.measurements
        ],
    }
