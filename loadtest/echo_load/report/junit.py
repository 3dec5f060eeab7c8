"""Results as JUnit XML, the format in which CI systems read the outcome of tests.

There are several schemas of it; these files are valid by that of Apache Ant (as written down by
Windy Road) and by that of Jenkins. GitLab reads only the text of failures, not their `message`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Literal, NamedTuple
from xml.etree import ElementTree as ET

from echo_client.failure_kinds import MISMATCHES
from echo_core.units import format_count, format_duration
from echo_load.plan.plan import Plan
from echo_load.plan.stages import StagePlan
from echo_load.report.evidence import evidence_parts, evidence_rows
from echo_load.report.page.rows import description, machine, opening
from echo_load.report.plain_text import printable
from echo_load.report.summaries import as_text, summary_of
from echo_load.report.tables import consequence, reconciled
from echo_load.results.result import Result, StageResult
from echo_load.results.verdict import shortcomings

# These commands choose a part of their test by themselves, so that its description varies.
_VARIABLE = frozenset({"capacity", "watch"})

# Relative error of the seconds that a complete stage lasted.
_ROUNDING = 0.001

_WHOLE = "the test as a whole"

_Outcome = Literal["passed", "failure", "error", "skipped"]


class _Case(NamedTuple):
    """A check of a result, which is shown as a test.

    Attributes:
        name: its name, the same whenever the same test is run.
        outcome: its outcome; `skipped` if there was nothing to check, or no way to judge it.
        message: the reason, unless it passed; a line of text.
        details: further lines of text.
        seconds: the time that it took, if any.
    """

    name: str
    outcome: _Outcome = "passed"
    message: str = ""
    details: str = ""
    seconds: float = 0.0


def junit(results: Sequence[Result], names: Sequence[str]) -> bytes:
    """Return results as JUnit XML, each as a test suite.

    Args:
        results: the results.
        names: their names, shown if there are several.
    """
    root = ET.Element("testsuites")
    several = len(results) > 1
    for number, (result, name) in enumerate(zip(results, names, strict=True)):
        title = f"{name}: {_title(result)}" if several else _title(result)
        suite = _suite(number, title, result.started_at, result.totals.seconds, _cases(result))
        properties = {"verdict": result.verdict, **opening(result), **machine(result)}
        for key, value in properties.items():
            _sub(suite[0], "property", name=key, value=value)
        _sub(suite, "system-out").text = printable(as_text(summary_of(result), wrap=False))
        bound = f"generator-bound: {consequence(result)}; " if result.generator.bound else ""
        _sub(suite, "system-err").text = bound + "; ".join(result.generator.findings)
        root.append(suite)
    return _written(root)


def junit_error(title: str, message: str) -> bytes:
    """Return JUnit XML for a test that has no result, because of an error."""
    root = ET.Element("testsuites")
    now = datetime.now(UTC).isoformat()
    suite = _suite(0, title, now, 0.0, [_Case(_WHOLE, "error", message)])
    _sub(suite, "system-out")
    _sub(suite, "system-err")
    root.append(suite)
    return _written(root)


def _written(root: ET.Element) -> bytes:
    ET.indent(root)
    written: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return written + b"\n"


def _sub(parent: ET.Element, tag: str, **attributes: str) -> ET.Element:
    printed = {name: printable(value) for name, value in attributes.items()}
    return ET.SubElement(parent, tag, printed)


def _title(result: Result) -> str:
    """Return a title of a test that is the same whenever it is run.

    CI systems tell tests apart, and compare them with earlier ones, by title and name.
    """
    title = " ".join(("echo-load", result.command, *result.plan.targets))
    return title if result.command in _VARIABLE else f"{title}: {description(result)}"


def _suite(
    number: int, title: str, started_at: str, seconds: float, cases: Sequence[_Case]
) -> ET.Element:
    """Return a test suite with empty properties, and without output."""
    outcomes = [case.outcome for case in cases]
    suite = ET.Element(
        "testsuite",
        {
            "id": str(number),
            "package": "echo-load",
            "name": printable(title),
            # The schema allows no time zone.
            "timestamp": started_at[:19],
            "hostname": "localhost",
            "tests": str(len(cases)),
            "failures": str(outcomes.count("failure")),
            "errors": str(outcomes.count("error")),
            "skipped": str(outcomes.count("skipped")),
            "time": f"{seconds:.3f}",
        },
    )
    _sub(suite, "properties")
    for case in cases:
        shown = _sub(suite, "testcase", classname=title, name=case.name, time=f"{case.seconds:.3f}")
        if case.outcome != "passed":
            reason = _sub(shown, case.outcome, message=case.message, type=case.outcome)
            reason.text = printable("\n".join(filter(None, (case.message, case.details))))
    return suite


def _cases(result: Result) -> list[_Case]:
    """Return the checks of a result, of which at least one has failed unless it passed."""
    has_stages = result.watch is None and result.idle is None
    cases = [
        *(_stages(result) if has_stages else ()),
        *_replies(result),
        *_thresholds(result),
        *_reconciliation(result),
        *_at_least(result),
    ]
    failed = [case for case in cases if case.outcome in {"failure", "error"}]
    shown = {case.message for case in failed}
    for case in failed:
        shown.update(case.details.splitlines())
    others = [reason for reason in result.reasons if reason not in shown]
    whole = _Case(_WHOLE, seconds=0.0 if has_stages else result.totals.seconds)
    if others or not (result.passed or failed):
        message, *details = others or [f"the verdict is {result.verdict}"]
        outcome: _Outcome = "error" if result.verdict == "interrupted" else "failure"
        whole = whole._replace(outcome=outcome, message=message, details="\n".join(details))
    return [whole, *cases]


def _stages(result: Result) -> Iterator[_Case]:
    """Yield whether each stage passed; one that never began is skipped."""
    planned = result.plan.run_stages
    for number, stage_plan in enumerate(planned):
        name = f"stage {number + 1} of {len(planned)}: {result.plan.stage_name(stage_plan)}"
        if result.capacity is not None:
            # Its rate is a part of the answer.
            name = "the test at the answer"
        if number >= len(result.stages) or not result.stages[number].seconds:
            yield _Case(name, "skipped", "the stage was not reached")
            continue
        stage = result.stages[number]
        case = _Case(name, seconds=stage.seconds)
        if result.verdict == "interrupted" and _is_cut_short(result.plan, stage_plan, stage):
            ran = format_duration(round(stage.seconds, 3))
            case = case._replace(outcome="skipped", message=f"interrupted after {ran}")
        for reason in shortcomings(result.plan, stage):
            case = case._replace(outcome="failure", message=reason, details=_first(result, stage))
        yield case


def _is_cut_short(plan: Plan, planned: StagePlan, stage: StageResult) -> bool:
    """Return whether a stage of an interrupted test did not last as long as planned."""
    if plan.loop or planned.duration is None:
        return True
    return stage.seconds < plan.repeat * planned.duration * (1 - _ROUNDING)


def _first(result: Result, stage: StageResult) -> str:
    """Return the first failure of each kind that a stage has, a line each."""
    # It is the first one of all stages, of which each has only numbers.
    of = " of all stages" if len(result.stages) > 1 else ""
    rows = evidence_rows(result.evidence)
    return "\n".join(f"first {kind}{of}: {said}" for kind, said in rows if kind in stage.errors)


def _replies(result: Result) -> Iterator[_Case]:
    """Yield whether every reply was what was sent."""
    case = _Case("every reply is identical to what was sent")
    wrong = {kind: result.totals.errors.get(kind, 0) for kind in MISMATCHES}
    if total := sum(wrong.values()):
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in sorted(wrong.items()) if count)
        were = "was" if total == 1 else "were"
        message = f"{format_count(total, 'reply')} {were} not what was sent ({kinds})"
        if result.passed:
            message = f"not judged: {message}; a watch is judged by its budget for outages"
        yield case._replace(
            outcome="skipped" if result.passed else "failure",
            message=message,
            details=as_text(*evidence_parts(result)),
        )
    elif not result.totals.messages:
        yield case._replace(outcome="skipped", message="no message came back")
    else:
        yield case


def _reconciliation(result: Result) -> Iterator[_Case]:
    """Yield whether the counts of generators and server agree, if they were compared."""
    found = result.reconciliation
    if found is None:
        return
    case = _Case("the counts of the generators equal those of the server")
    if found.balanced:
        yield case
    elif set(found.differences) <= set(result.reasons):
        message, *others = (*found.differences, reconciled(found).plain)
        yield case._replace(outcome="failure", message=message, details="\n".join(others))
    else:
        yield case._replace(
            outcome="skipped",
            message="not judged: errors that are tolerated, or an early end, make them differ",
            details=reconciled(found).plain,
        )


def _thresholds(result: Result) -> Iterator[_Case]:
    """Yield whether each threshold was kept."""
    for one in {one.name: one for one in result.thresholds}.values():
        if one.passed:
            yield _Case(one.name)
            continue
        reason = f"{one.crossed}: {one.measured}"
        for given in result.reasons:
            if given.startswith((f"{one.name} ", f"{one.name}:")):
                reason = given
        yield _Case(one.name, "failure", reason)


def _at_least(result: Result) -> Iterator[_Case]:
    """Yield whether a capacity is as high as required, if it is required."""
    capacity = result.capacity
    if capacity is None or capacity.at_least is None:
        return
    case = _Case(f"capacity of at least {capacity.written(capacity.at_least)}")
    reason = capacity.shortfall
    if reason is None:
        yield case
    elif reason in result.reasons:
        outcome: _Outcome = "error" if capacity.is_undecided else "failure"
        yield case._replace(outcome=outcome, message=reason, details=capacity.answer)
    else:
        yield case._replace(outcome="skipped", message=capacity.answer)
