"""The tables of measurements on a terminal, readable in 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from echo_load.lab.experiment import Measurement, Measurements
from echo_load.lab.notation import names_by_size, relative_spread, spread, written

_CAPTION = "Below each median: the lowest and the highest value, relative to it."


def tables(measurements: Measurements) -> Iterator[RenderableType]:
    """Yield the tables of an experiment: one for all, or one for each name with several sizes."""
    names = names_by_size(measurements)
    if not names:
        if len(measurements):
            yield _by_name(measurements)
        return
    for name in names:
        yield Padding(_by_size(name, list(measurements.named(name))), (1, 0, 0, 0))
    if any(spread(one) for one in measurements):
        yield Padding(Text(_CAPTION, style="dim"), (1, 0, 0, 0))


def _by_name(measurements: Measurements) -> Table:
    """Return a table with a row for each measurement."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim")
    for measurement in measurements:
        name = f"{measurement.name}, {measurement.of}" if measurement.of else measurement.name
        if measurement.at is not None:
            name += f" at {measurement.at:,}"
        table.add_row(name, written(measurement.median, measurement.unit), spread(measurement))
    return table


def _by_size(name: str, measurements: Sequence[Measurement]) -> Table:
    """Return a table of one quantity, with a row for each variant and a column for each size."""
    sizes = sorted({one.at for one in measurements if one.at is not None})
    found = {(one.of, one.at): one for one in measurements}
    table = Table(
        title=name,
        title_justify="left",
        title_style="",
        box=SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        header_style="dim",
    )
    table.add_column(no_wrap=True)
    for size in sizes:
        table.add_column(f"{size:,}", justify="right")
    for variant in dict.fromkeys(one.of for one in measurements):
        table.add_row(variant, *(_cell(found.get((variant, size))) for size in sizes))
    return table


def _cell(measurement: Measurement | None) -> Text:
    if measurement is None:
        return Text("")
    cell = Text(written(measurement.median, measurement.unit))
    if between := relative_spread(measurement):
        cell.append(f"\n{between}", style="dim")
    return cell
