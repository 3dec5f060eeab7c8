"""The tables of measurements: readable in 80 columns, with the spread of each value."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from echo_load.lab.experiment import Measurement, Measurements
from echo_load.lab.notation import relative_spread
from echo_load.lab.tables import tables

SIZES = (1, 10, 100, 1000, 5000)


def printed(measurements: Measurements) -> list[str]:
    """The lines of the tables in 80 columns."""
    console = Console(file=io.StringIO(), width=80)
    for table in tables(measurements):
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_five_sizes_with_their_spreads_fit_80_columns() -> None:
    measurements = Measurements(
        Measurement(name, (0.9e5, 1e5, 1.23e5), "1/s", variant, size)
        for size in SIZES
        for variant in ("threads x 2", "greenlets")
        for name in ("messages", "memory per connection")
    )
    lines = printed(measurements)
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    # Nothing is cut or wrapped.
    assert "…" not in text
    assert text.count("100,000/s") == text.count("-10 % +23 %") == 20
    assert {"messages", "memory per connection"} <= {line.strip() for line in lines}
    assert "the lowest and the highest value" in lines[-1]


def test_what_was_not_measured_at_a_size_is_left_out() -> None:
    text = "\n".join(
        printed(
            Measurements(
                [
                    Measurement("messages", (5.0,), "", "fork", 1),
                    Measurement("messages", (7.0,), "", "fork", 1000),
                    Measurement("messages", (6.0,), "", "hub", 1000),
                    Measurement("memory", (2048.0,), "B", "hub", 1000),
                ]
            )
        )
    )
    words = [word for word in text.split() if set(word) != {"─"}]
    assert words == [
        *("messages", "1", "1,000", "fork", "5", "7", "hub", "6"),
        *("memory", "1,000", "hub", "2.0", "KiB"),
    ]


def test_one_size_is_a_row_for_each_measurement() -> None:
    (line,) = printed(Measurements([Measurement("start", (1e-3, 2e-3, 4e-3), "s", "fork")]))
    assert line.split("  ") == ["start, fork", "2 ms", "1 ms to 4 ms", ""]


def test_without_measurements_there_is_no_table() -> None:
    assert printed(Measurements()) == []


@pytest.mark.parametrize(
    ("values", "written"),
    [
        ((90.0, 100.0, 123.0), "-10 % +23 %"),
        ((100.0, 100.0, 100.0), ""),
        ((0.0, 0.0, 1.0), "0 to 1"),
        ((1.0, 1.0, 40.0), "+0 % +3,900 %"),
    ],
)
def test_a_spread_is_relative_to_the_median(values: tuple[float, ...], written: str) -> None:
    assert relative_spread(Measurement("x", values)) == written


def test_a_value_that_is_measured_again_replaces_the_former() -> None:
    measurements = Measurements()
    measurements.add(Measurement("x", (1.0,), "", "a", 1))
    measurements.add(Measurement("x", (2.0,), "", "b", 1))
    measurements.add(Measurement("x", (1.0, 3.0), "", "a", 1))
    assert [(one.of, one.values) for one in measurements] == [("a", (1.0, 3.0)), ("b", (2.0,))]
