"""Write the tables and plots of docs/performance.md and README.md from results of the benchmarks.

    python docs/make_performance.py [--from build/bench]

With --from, the results in a folder take the place of those in docs/performance first. A table
stands between `<!-- table SUITE GROUP -->` and `<!-- end -->`, a line on the machine likewise.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.append(str(DOCS.parent / "tests" / "benchmarks"))

from bench_results import Scenario, Suite, Value  # noqa: E402

PAGE = DOCS / "performance.md"
RESULTS = DOCS / "performance"
OURS = ("echo-server", "echo-load", "locust, Echo")
_MARKED = re.compile(r"(<!-- (table|machine|summary)([^>]*?) -->\n).*?(<!-- end -->)", re.DOTALL)
README = DOCS.parent / "README.md"
# Candidates in the columns of the summary, by suite, and other names for some of them.
SUMMARY = {
    "server": (
        "echo-server",
        "Go, a goroutine per connection",
        "uvloop, Protocol",
        "gevent StreamServer, a greenlet per connection",
        "asyncio, Protocol",
    ),
    "generator": (
        "echo-load run, hub",
        "locust, EchoBlockUser",
        "uvloop, Protocol, unchecked",
        "echo-load run, threads",
        "locust, a plain socket User, unchecked",
    ),
}
RENAMED = {
    "echo-load run, hub": "echo-load run, every byte checked",
    "uvloop, Protocol, unchecked": "uvloop, unchecked",
    "locust, a plain socket User, unchecked": "locust, a plain socket, unchecked",
}
# Suite, group, label of the horizontal axis.
PLOTS = (
    ("server", "connections", "connections"),
    ("server", "sizes", "bytes per message"),
    ("generator", "connections", "connections"),
    ("generator", "pipelines", "messages in flight per connection"),
)


def read_suites() -> dict[str, Suite]:
    """Return the results that the page is made from, by name."""
    return {path.stem: Suite.read(path) for path in sorted(RESULTS.glob("*.json"))}


def page(text: str, suites: dict[str, Suite]) -> str:
    """Return the page with all tables written anew."""
    makers: dict[str, Callable[[str], str]] = {
        "table": lambda what: _table(suites, *what.split()),
        "machine": lambda what: _machine(suites[what.strip()]),
        "summary": lambda _: _summary(suites),
    }
    return _MARKED.sub(lambda found: found[1] + makers[found[2]](found[3]) + found[4], text)


def _summary(suites: dict[str, Suite]) -> str:
    """Return the table of README.md: shares at 100 connections, the highest first."""
    lines = ["| servers | share | generators | share |", "|---|---|---|---|"]
    columns = (_ranked(suites[name], candidates) for name, candidates in SUMMARY.items())
    lines += [f"| {server} | {generator} |" for server, generator in zip(*columns, strict=True)]
    return "\n".join(lines) + "\n"


def _ranked(suite: Suite, candidates: Sequence[str]) -> list[str]:
    """Return the cells of candidates and their shares, from the highest share to the lowest."""
    ranked = [(_median_share(suite, candidate), candidate) for candidate in candidates]
    ranked.sort(key=lambda one: one[0] or 0.0, reverse=True)
    cells = []
    for share, candidate in ranked:
        strong = "**" if candidate.startswith(OURS) and "threads" not in candidate else ""
        name = RENAMED.get(candidate, candidate)
        written = "not measured" if share is None else f"{share:.2f}"
        cells.append(f"{strong}{name}{strong} | {strong}{written}{strong}")
    return cells


def _median_share(suite: Suite, candidate: str) -> float | None:
    for one in suite.scenarios:
        if (one.group, one.x) == ("connections", 100) and candidate in one.rounds:
            return statistics.median(shares(one, one.rounds[candidate]))
    return None


def _machine(suite: Suite) -> str:
    machine, rounds = suite.machine, suite.rounds
    length = f" of {suite.seconds:g} s" if suite.seconds else ""
    times = "one round" if rounds == 1 else f"medians of {rounds} interleaved rounds"
    # The range of two values is the values themselves.
    note = " (the brackets show both)" if rounds == 2 else ""
    left_out = "".join(f" Left out: {name} ({why})." for name, why in suite.left_out.items())
    return (
        f"Measured on {suite.date} at revision {suite.revision}: {times}{length}{note}, Python "
        f"{machine.python}, {machine.cores} cores ({machine.processor}), "
        f"{machine.memory_gib:g} GiB, Linux {machine.kernel}.{left_out}\n"
    )


def _table(suites: dict[str, Suite], name: str, *groups: str) -> str:
    """Return a table of one or more groups, with a column for each scenario."""
    chosen = [one for group in groups for one in suites[name].scenarios if one.group == group]
    names = list(dict.fromkeys(candidate for one in chosen for candidate in one.rounds))
    first = f"{name}, share of the reference" if chosen[0].reference else name
    heads = [first, *(_head(one, several=len(groups) > 1) for one in chosen)]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for candidate in names:
        shown = f"**{candidate}**" if candidate.startswith(OURS) else candidate
        lines.append("| " + " | ".join([shown, *(_cell(one, candidate) for one in chosen)]) + " |")
    return "\n".join(lines) + "\n"


def _head(scenario: Scenario, *, several: bool) -> str:
    head = f"{scenario.group}, {scenario.label}" if several else scenario.label
    return head if scenario.reference else f"{head} ({scenario.unit})"


def _cell(scenario: Scenario, candidate: str) -> str:
    """Return a value; or its share of the reference, with the range over the rounds."""
    values = scenario.rounds.get(candidate)
    if values is None:
        return ""
    median = statistics.median(one.value for one in values)
    if candidate == scenario.reference:
        return f"1.00 ({_written(median)})"
    if scenario.reference is None:
        if len(values) == 1:
            return _written(median)
        shown, reached = _written(median), [one.value for one in values]
    else:
        reached = shares(scenario, values)
        shown = f"{statistics.median(reached):.2f}"
        return f"{shown} [{min(reached):.2f}-{max(reached):.2f}]"
    return f"{shown} [{_written(min(reached))}-{_written(max(reached))}]"


def shares(scenario: Scenario, values: list[Value]) -> list[float]:
    """Return the share of the reference in each round."""
    reference = scenario.rounds[scenario.reference or ""]
    return [one.value / other.value for one, other in zip(values, reference, strict=True)]


def _written(value: float) -> str:
    for unit, factor in (("M", 1e6), ("k", 1e3)):
        if value >= factor:
            return f"{value / factor:.3g} {unit}" if value < 100 * factor else _whole(value, unit)
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _whole(value: float, unit: str) -> str:
    return f"{value / (1e6 if unit == 'M' else 1e3):.0f} {unit}"


def plot(suite: Suite, group: str, axis: str, path: Path) -> None:
    """Draw the shares of all candidates over the scenarios of a group."""
    import matplotlib as mpl

    mpl.use("svg")
    # The same results give the same file.
    mpl.rcParams["svg.hashsalt"] = "echoswarm"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 4.6), layout="constrained")
    for number, (name, points) in enumerate(_curves(suite, group)):
        ours = name.startswith(OURS)
        axes.plot(
            [x for x, _ in points],
            [share for _, share in points],
            marker="osv^D"[number % 5],
            linewidth=2.6 if ours else 1.2,
            label=name,
        )
    axes.set(xscale="log", ylim=(0, None), xlabel=axis, ylabel="share of the C program")
    ticks = [one.x for one in suite.scenarios if one.group == group]
    axes.set_xticks(ticks, [f"{x:,.0f}" for x in ticks], minor=False)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False, fontsize="small")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _curves(suite: Suite, group: str) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    curves: dict[str, list[tuple[float, float]]] = {}
    for scenario in suite.scenarios:
        if scenario.group == group:
            for name, values in scenario.rounds.items():
                point = scenario.x, statistics.median(shares(scenario, values))
                curves.setdefault(name, []).append(point)
    yield from curves.items()


def is_current(suites: dict[str, Suite]) -> bool:
    """Return True if all tables are those of the results, and all plots exist."""
    pages = all(page(path.read_text(), suites) == path.read_text() for path in (PAGE, README))
    return pages and all(_plot_path(name, group).exists() for name, group, _ in PLOTS)


def _plot_path(name: str, group: str) -> Path:
    return RESULTS / f"{name}-{group}.svg"


def main() -> int:
    """Write the pages and the plots, or check the pages; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--from", dest="source", type=Path, help="folder of new results")
    parser.add_argument("--check", action="store_true", help="only check that tables are current")
    options = parser.parse_args()
    if options.check:
        current = is_current(read_suites())
        print("current" if current else "not current: run make performance")
        return 0 if current else 1
    if options.source is not None:
        for path in options.source.glob("*.json"):
            shutil.copy(path, RESULTS)
    suites = read_suites()
    for path in (PAGE, README):
        path.write_text(page(path.read_text(), suites))
    for name, group, axis in PLOTS:
        plot(suites[name], group, axis, _plot_path(name, group))
    return 0


if __name__ == "__main__":
    sys.exit(main())
