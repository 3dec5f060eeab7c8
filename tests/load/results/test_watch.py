"""Figures of a watch in words."""

from __future__ import annotations

import pytest

from echo_load.results.watch import written_availability


@pytest.mark.parametrize(
    ("share", "written"),
    [
        (1.0, "100 %"),
        (0.999_999_9, "99.9999 %"),
        (0.999_999_4, "99.9999 %"),
        (0.999_95, "99.9950 %"),
        (0.832_833_3, "83.2833 %"),
        (0.0, "0.0000 %"),
    ],
)
def test_only_a_complete_availability_is_100_percent(share: float, written: str) -> None:
    assert written_availability(share) == written
