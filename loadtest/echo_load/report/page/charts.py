"""The charts of a report, in the format of plotly.js."""

from __future__ import annotations

from collections.abc import Sequence

from echo_load.report.page import distributions, outages, over_time
from echo_load.report.page.bandwidth import bandwidth
from echo_load.report.page.capacity import capacity
from echo_load.report.page.generators import generators
from echo_load.report.page.idle import idle
from echo_load.report.page.targets import targets
from echo_load.report.page.traces import Chart, Run

__all__ = ["Chart", "Run", "charts"]


def charts(runs: Sequence[Run]) -> list[Chart]:
    """Return all charts, each of which shows all runs.

    For searches for an idle timeout there are only the charts of idle times.
    """
    if all(run.result.idle is not None for run in runs):
        return idle(runs)
    watched = all(run.result.watch is not None for run in runs)
    return [
        *([outages.outages(runs)] if watched else []),
        *capacity(runs),
        *idle(runs),
        over_time.throughput(runs),
        over_time.response(runs),
        *over_time.jitter(runs),
        # A watch sends few bytes, and hardly uses a processor.
        *([] if watched else [bandwidth(runs)]),
        over_time.connections(runs),
        over_time.errors(runs),
        distributions.distribution(runs),
        distributions.percentiles(runs),
        # A watch sends probes when it can, and has service times only.
        *([] if watched else [distributions.response_and_service(runs)]),
        distributions.spread(runs),
        *targets(runs),
        *([] if watched else generators(runs)),
    ]
