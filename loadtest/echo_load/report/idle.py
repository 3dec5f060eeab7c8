"""A search for an idle timeout on the terminal: its progress, and what it found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.box import HORIZONTALS
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from echo_core.units import format_count, format_duration
from echo_load.plan.thresholds import written_time
from echo_load.report.checks import checks, opened
from echo_load.report.output import Output
from echo_load.results.idle import IdleResult, IdleRung
from echo_load.results.result import Result
from echo_load.runner.observer import Progress

_REFRESHES_A_SECOND = 4
_VERDICTS = {
    "passed": ("PASSED", "bold green"),
    "crossed": ("THRESHOLD CROSSED", "bold red"),
    "failed": ("FAILED", "bold red"),
    "interrupted": ("INTERRUPTED", "bold yellow"),
}
_MARKS = {"kept": ("●", "green"), "unknown": ("·", "dim")}
_DROPPED = ("○", "red")


class IdleScreen:
    """The progress of a search on a terminal: a line per round, updated in place.

    Args:
        err: standard error.
    """

    def __init__(self, err: Output) -> None:
        self._err = err
        self._live: Live | None = None

    def draw(self, progress: Progress) -> None:
        """Draw the current progress."""
        assert progress.idle is not None
        if self._live is None:
            self._live = Live(
                console=self._err.console,
                transient=True,
                refresh_per_second=_REFRESHES_A_SECOND,
            )
            self._live.start()
        self._live.update(_screen(progress, progress.idle))

    def close(self) -> None:
        """Remove the live display."""
        live, self._live = self._live, None
        if live is not None:
            self._err.guarded(live.stop)


def idle_table(found: IdleResult) -> Table:
    """Return the table of the pauses, one row for neighbours with the same outcome."""
    table = Table(box=HORIZONTALS, pad_edge=False)
    table.add_column("pause", no_wrap=True)
    table.add_column("probes", justify="right")
    table.add_column("outcome", overflow="fold")
    table.add_column("closed after", overflow="fold")
    for said, rungs in _neighbours(found):
        pauses = _span([rung.pause_seconds for rung in rungs])
        closed = _span([one.closed_seconds for one in rungs if one.closed_seconds is not None])
        style = "red" if rungs[0].how is not None else ""
        table.add_row(pauses, f"{len(rungs)}", Text(said, style), closed)
    return table


def idle_summary(result: Result, found: IdleResult) -> Group:
    """Return target, answer and verdict in a few lines, short enough for a chat message."""
    word, style = _VERDICTS[result.verdict]
    lines = [
        Text.assemble((word, style), f"  echo-load idle {result.targets[0]}: {found.description}"),
        Text(f"  {found.answer}", "bold"),
        Text(f"  {checks(result)}"),
    ]
    lines += [Text(f"  {line}") for line in opened(result)]
    if found.note is not None:
        lines.append(Text(f"  {found.note}", "yellow"))
    if result.passed and found.at_least_seconds is not None:
        lines.append(Text(f"  kept for {format_duration(found.at_least_seconds)} at least"))
    lines += [Text(f"  - {reason}", "red") for reason in result.reasons]
    return Group(*lines)


def _neighbours(found: IdleResult) -> Iterator[tuple[str, list[IdleRung]]]:
    by_pause = sorted(found.rungs, key=lambda rung: rung.pause_seconds)
    for said, rungs in groupby(by_pause, key=lambda rung: rung.said):
        yield said, list(rungs)


def _span(seconds: Sequence[float]) -> str:
    written = (
        dict.fromkeys(written_time(one) for one in (min(seconds), max(seconds))) if seconds else {}
    )
    return " to ".join(written)


def progress_text(progress: Progress, found: IdleResult) -> Text:
    """Return the round, the elapsed time, and the connections that are idle, in one line."""
    waiting = [
        rung.pause_seconds
        for rung in found.rungs
        if rung.round == progress.part and rung.outcome == "unknown"
    ]
    return Text.assemble(
        (f"round {progress.part}", "bold"),
        f"  {format_duration(round(progress.elapsed, 1))}",
        f"  {format_count(len(waiting), 'connection')} idle",
        f", the longest for {written_time(max(waiting))}" if waiting else "",
    )


def _screen(progress: Progress, found: IdleResult) -> Group:
    rounds = [list(rungs) for _, rungs in groupby(found.rungs, key=lambda rung: rung.round)]
    return Group(progress_text(progress, found), *map(_line, rounds), Text(found.answer))


def _line(rungs: Sequence[IdleRung]) -> Text:
    """Return a mark for each pause of a round: answered, dropped, or still idle."""
    marks = (_MARKS.get(rung.outcome, _DROPPED) for rung in rungs)
    ends = [written_time(rung.pause_seconds) for rung in (rungs[0], rungs[-1])]
    return Text.assemble((f"{ends[0]:>7} ", "dim"), *marks, (f" {ends[1]}", "dim"))
