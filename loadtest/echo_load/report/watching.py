"""A watch on the terminal: outages as they begin and end, and a summary."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from rich.box import HORIZONTALS
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from echo_core.units import format_count, format_duration
from echo_load.plan.thresholds import written_time
from echo_load.report.checks import checks, opened
from echo_load.report.page.rows import NOTHING
from echo_load.results.result import Result
from echo_load.results.watch import Outage, Pause, WatchResult, written_availability
from echo_load.runner.observer import Progress

_BAR_WIDTH = 60
_REFRESHES_A_SECOND = 10
_MOST_OUTAGES = 20


class WatchScreen:
    """The progress of a watch: a line as each outage begins and ends, and a live timeline.

    Args:
        live: live display for the timeline; None without a terminal.
        write: prints a line.
    """

    def __init__(self, live: Live | None, write: Callable[[Text], None]) -> None:
        self._live = live
        self._write = write
        self._begun: set[tuple[str, int]] = set()
        self._ended: set[tuple[str, int]] = set()
        self._pauses = 0
        self._is_first = True

    def progressed(self, progress: Progress) -> None:
        """Show the progress."""
        found = progress.watch
        assert found is not None
        if self._is_first:
            self._is_first = False
            several = format_count(len(found.targets), "target")
            self._write(Text(f"watching {several} on {_connections(progress)}", "dim"))
            if self._live is not None:
                self._live.start()
        for pause in found.pauses[self._pauses :]:
            self._write(_paused(pause))
        self._pauses = len(found.pauses)
        for outage in found.outages:
            self._announce(outage)
        if self._live is not None:
            self._live.update(_timelines(found))

    def close(self) -> None:
        """Remove the live display."""
        if self._live is not None:
            self._live.stop()

    def _announce(self, outage: Outage) -> None:
        # Later evidence may move the beginning of an outage by some milliseconds.
        name = (outage.target, outage.number)
        if name not in self._begun:
            self._begun.add(name)
            self._write(_line(outage, "outage of", "red"))
        if not outage.ongoing and name not in self._ended:
            self._ended.add(name)
            ended = _line(outage, "end of the outage of", "green")
            self._write(ended.append(f" after {written_time(outage.seconds)}"))


def live_display(console: Console) -> Live:
    """Return a live display that disappears at its end."""
    return Live(console=console, transient=True, refresh_per_second=_REFRESHES_A_SECOND)


def outage_table(found: WatchResult) -> Table:
    """Return the table of the outages, the longest ones if there are many."""
    table = Table(box=HORIZONTALS, pad_edge=False)
    for name in ("began (UTC)", "from", "to", "length"):
        table.add_column(name, justify="right", no_wrap=True)
    several = ("target",) if len(found.targets) > 1 else ()
    for name in ("kind", "connections", *several):
        table.add_column(name, overflow="fold")
    longest = sorted(found.outages, key=lambda one: one.seconds)[-_MOST_OUTAGES:]
    for outage in found.outages:
        if outage in longest:
            table.add_row(
                clock(found, outage),
                f"{outage.begin:.3f} s",
                "the end" if outage.ongoing else f"{outage.end:.3f} s",
                written_time(outage.seconds),
                Text(outage.kind, "red"),
                f"{outage.connections:,}{', others answered' if outage.partial else ''}",
                *((outage.target,) if several else ()),
            )
    return table


def availability_table(found: WatchResult) -> Table:
    """Return the table of several targets, with a row for each."""
    table = Table(box=HORIZONTALS, pad_edge=False)
    table.add_column("target", overflow="fold")
    for name in ("availability", "outages", "out for"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in found.targets:
        seconds = written_time(one.outage_seconds) if one.outages else NOTHING
        share = written_availability(one.availability)
        # The style has an effect in Markdown only.
        table.add_row(Text(one.target, "code"), share, f"{one.outages:,}", seconds)
    return table


def clock(found: WatchResult, outage: Outage) -> str:
    """Return the time of day (UTC) at which an outage began, with the date if they vary."""
    several_days = len({one.started_at[:10] for one in found.outages}) > 1
    date = f"{outage.started_at[:10]} " if several_days else ""
    return date + _time_of_day(outage.started_at)


def watch_summary(result: Result, found: WatchResult) -> Group:
    """Return targets, outages and figures in a few lines, short enough for a chat message."""
    word, style = headline(result, found)
    lines = [
        Text.assemble(
            (word, style),
            f"  echo-load watch {', '.join(result.targets)}: "
            f"{format_duration(round(found.seconds, 1))}, probes every "
            f"{format_duration(found.interval_seconds)}",
        ),
        Text(f"  availability {written_availability(found.availability)}"),
        Text(f"  {checks(result)}"),
        Text(f"  {format_count(found.messages_lost, 'message')} lost"),
    ]
    if found.outages:
        lines[1].append(
            f", longest outage {written_time(found.longest_seconds)}, "
            f"in all {written_time(found.outage_seconds)}"
        )
    if found.reconnects:
        lines[3].append(
            f", {format_count(found.reconnects, 'reconnect')}, after "
            f"{written_time(found.reconnect_median_seconds)} (median), "
            f"{written_time(found.reconnect_longest_seconds)} at most"
        )
    lines += [Text(f"  {line}") for line in opened(result)]
    if found.paused is not None:
        lines.append(Text(f"  {found.paused}; nothing is known of that time", "yellow"))
    lines += [Text(f"  - {reason}", "red") for reason in result.reasons]
    if result.passed and found.budget_seconds is not None:
        lines.append(Text(f"  within the budget of {format_duration(found.budget_seconds)}"))
    return Group(*lines)


def headline(result: Result, found: WatchResult) -> tuple[str, str]:
    """Return the verdict on a watch in a few capitals, and the style in which to print it."""
    if result.verdict == "interrupted":
        return "INTERRUPTED", "bold yellow"
    if not found.within_budget:
        return "OVER BUDGET", "bold red"
    if found.outages:
        return format_count(len(found.outages), "outage").upper(), "bold yellow"
    return "NO OUTAGE", "bold green"


def _time_of_day(started_at: str, seconds_later: float = 0.0) -> str:
    """Return the time of day of an instant (ISO 8601), or some seconds later: `14:03:07.250`."""
    try:
        at = datetime.fromisoformat(started_at) + timedelta(seconds=seconds_later)
    except ValueError:
        # A saved result may have any text.
        return started_at
    return at.time().isoformat(timespec="milliseconds")


def _connections(progress: Progress) -> str:
    assert progress.watch is not None
    count = format_count(progress.tally.plan.connections, "connection")
    return (
        f"{count}, and on a new one every {format_duration(progress.watch.interval_seconds)}; "
        "Ctrl-C ends it"
    )


def _line(outage: Outage, what: str, style: str) -> Text:
    begins = style == "red"
    at = outage.begin if begins else outage.end
    time_of_day = _time_of_day(outage.started_at, 0.0 if begins else outage.seconds)
    partly = ", others answer" if outage.partial else ""
    return Text.assemble(
        (f"{time_of_day} UTC {at:9.3f} s  ", "dim"),
        (f"{what} {outage.target}: {outage.kind}{partly}", style),
    )


def _paused(pause: Pause) -> Text:
    assert pause.started_at is not None
    return Text.assemble(
        (f"{_time_of_day(pause.started_at)} UTC {pause.begin:9.3f} s  ", "dim"),
        (f"the watch itself paused {written_time(pause.seconds)}", "yellow"),
    )


def _timelines(found: WatchResult) -> RenderableType:
    """Return a bar for each target, from the beginning until now."""
    lines = []
    for target in found.targets:
        bar = Text()
        for number in range(_BAR_WIDTH):
            begin, end = (found.seconds * edge / _BAR_WIDTH for edge in (number, number + 1))
            out = any(
                one.target == target.target and one.begin < end and one.end > begin
                for one in found.outages
            )
            bar.append("█" if out else "▁", "red" if out else "green")
        share = written_availability(target.availability)
        lines.append(Text.assemble(bar, f" {share}  {target.target}"))
    last = f"{format_duration(round(found.seconds, 1))}, {found.messages_lost:,} messages lost"
    return Group(*lines, Text(last, "dim"))
