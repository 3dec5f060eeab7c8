"""Comparisons of results as text."""

from __future__ import annotations

from typing import Literal

import pytest

from echo_load.report.comparison import written_change
from echo_load.results.comparison import Change


@pytest.mark.parametrize(
    ("unit", "change", "interval"),
    [
        ("per second", "+0.0 %", "+0.0 to +0.0 %"),
        ("share", "+0.00 pp", "+0.00 to +0.00 pp"),
    ],
)
def test_no_change_has_no_negative_sign(
    unit: Literal["per second", "share"], change: str, interval: str
) -> None:
    written = written_change(
        Change(
            stage="whole test",
            figure="messages",
            unit=unit,
            baseline=1.0,
            other=1.0,
            change=-0.0,
            low=-0.00001,
            high=0.00001,
            verdict="no difference",
            repeats_to_tell=None,
        )
    )
    assert (written.change, written.interval) == (change, interval)
