"""The progress of a test as a line every few seconds, for logs such as those of CI jobs."""

from __future__ import annotations

import time

from rich.text import Text

from echo_core.units import LONGEST_SECONDS, format_count, format_duration
from echo_load.measure.histogram import LatencyHistogram
from echo_load.plan.thresholds import written_time
from echo_load.report.idle import progress_text
from echo_load.report.live import connections_at_first
from echo_load.report.output import Output
from echo_load.results.watch import WatchResult
from echo_load.runner.observer import Progress
from echo_load.runner.tally import Tally

# A line is printed if there was none for these seconds; its rate and p99 are of as many seconds.
INTERVAL_SECONDS = 5
# Generators send updates four times per second: a second is complete this long after its end.
_LATE_SECONDS = 0.5


class ProgressLines:
    """Lines on standard error: of the progress, and others.

    Args:
        err: standard error.
        with_stage: whether the lines of the progress name the stage.
    """

    def __init__(self, err: Output, *, with_stage: bool = False) -> None:
        self._err = err
        self._with_stage = with_stage
        self._printed = time.monotonic()

    def print(self, line: Text | str, *, wrap: bool = False) -> None:
        """Print a line; one of the progress is due some seconds later."""
        self._printed = time.monotonic()
        self._err.print(line, wrap=wrap)

    def progressed(self, progress: Progress) -> None:
        """Print a line of the progress if none was printed for some seconds."""
        if time.monotonic() - self._printed >= INTERVAL_SECONDS and has_figures(progress):
            self.print(progress_line(progress, with_stage=self._with_stage))


def has_figures(progress: Progress) -> bool:
    """Return whether there are figures for a line: a complete second, if messages are sent."""
    is_sending = progress.phase != "connecting" and progress.idle is None
    return not is_sending or progress.elapsed >= 1 + _LATE_SECONDS


def progress_line(progress: Progress, *, with_stage: bool = False) -> str:
    """Return the progress in one line.

    Rate and p99 are those of the last five complete seconds; errors are counted since the current
    part of the test began.

    Args:
        progress: the progress.
        with_stage: whether to name the stage.
    """
    tally = progress.tally
    if progress.idle is not None:
        return f"{progress_text(progress, progress.idle).plain}; {progress.idle.answer}"
    if progress.phase == "connecting":
        said = _connecting(tally)
    else:
        figures = [format_count(tally.counts.open, "connection"), _speed(progress)]
        figures += [_errors(tally)] if progress.watch is None else _outages(progress.watch)
        said = f"{_phase(progress)}: {', '.join(figures)}"
    if with_stage:
        number = max(0, tally.timeline.stage_at(progress.elapsed))
        said = f"{tally.plan.stage_name(tally.stages[number])}, {said}"
    return said


def _connecting(tally: Tally) -> str:
    counts = tally.counts
    said = f"connecting: {counts.opened:,} of {connections_at_first(tally):,} connected"
    return f"{said}, {counts.failed:,} failed" if counts.failed else said


def _phase(progress: Progress) -> str:
    """Return the elapsed time, with the planned one if there is one, and the phase."""
    said = format_duration(int(progress.elapsed))
    seconds = progress.tally.timeline.seconds
    if progress.phase == "running" and seconds < LONGEST_SECONDS:
        return f"{said} of {format_duration(seconds)}"
    return said if progress.phase == "running" else f"{progress.phase}, {said}"


def _speed(progress: Progress) -> str:
    end = max(0, int(progress.elapsed - _LATE_SECONDS))
    begin = max(0, end - INTERVAL_SECONDS)
    times = LatencyHistogram()
    for second in range(begin, end):
        times.merge(progress.tally.times_of(second))
    if not times.count:
        return "no replies"
    (p99,) = times.percentiles_us([99])
    return f"{times.count / (end - begin):,.0f} msg/s, p99 {written_time(p99 / 1e6)}"


def _errors(tally: Tally) -> str:
    errors = tally.counts.errors
    said = format_count(errors.total(), "error")
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in sorted(errors.items()) if count)
    return f"{said} ({kinds})" if kinds else said


def _outages(found: WatchResult) -> list[str]:
    out = [one.target for one in found.outages if one.ongoing]
    said = format_count(len(found.outages), "outage")
    return [
        f"{format_count(found.messages_lost, 'message')} lost",
        f"{said} (now {', '.join(out)})" if out else said,
    ]
