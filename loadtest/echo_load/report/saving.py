"""Results saved to files from Python, in the formats of the commands' output files."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from echo_load.errors import InvalidValueError, OutputError
from echo_load.plan import fields
from echo_load.report.output_files import OutputFiles
from echo_load.results.result import Result


def save_result(result: Result, path: str | os.PathLike[str]) -> None:
    """Write a result to a file as JSON, which `load_result` and `echo-load report` read.

    An existing file is replaced once the new one is complete.

    Raises:
        OutputError: the file cannot be written.
        InvalidValueError: an argument is of a wrong type.
    """
    _check(result)
    _save(path, result.to_json)


def save_csv(result: Result, path: str | os.PathLike[str]) -> None:
    """Write the figures of each second to a CSV file, as `echo-load run --csv` does.

    Raises:
        OutputError: the file cannot be written.
        InvalidValueError: an argument is of a wrong type.
    """
    from echo_load.report.exports import series_csv

    _check(result)
    _save(path, lambda: series_csv(result))


def save_html(
    results: Result | Sequence[Result],
    path: str | os.PathLike[str],
    *,
    names: Sequence[str] | None = None,
) -> None:
    """Write the HTML report of a result, or of several in the same charts, to a single file.

    Args:
        results: the result, or the results.
        path: the file.
        names: names of the results, shown if there are several; None for `result 1` and so on.

    Raises:
        OutputError: the file cannot be written.
        InvalidValueError: an argument is of a wrong type, there is no result, or there are more or
            fewer names than results.
        ModuleNotFoundError: a package of the extra `report` is not installed.
    """
    from echo_load.report.html import render

    shown, labels = _named(results, names)
    _save(path, lambda: render(shown, labels))


def save_junit(
    results: Result | Sequence[Result],
    path: str | os.PathLike[str],
    *,
    names: Sequence[str] | None = None,
) -> None:
    """Write a result, or several, as JUnit XML, as `--junit` of the commands does.

    Args:
        results: the result, or the results, each of which is a test suite.
        path: the file.
        names: names of the results, as for `save_html`.

    Raises:
        OutputError: the file cannot be written.
        InvalidValueError: as for `save_html`.
    """
    from echo_load.report.junit import junit

    shown, labels = _named(results, names)
    _save(path, lambda: junit(shown, labels))


def save_markdown(
    results: Result | Sequence[Result],
    path: str | os.PathLike[str],
    *,
    names: Sequence[str] | None = None,
) -> None:
    """Write the summary of a result, or of several, in Markdown, as `--markdown` does.

    Args:
        results: the result, or the results.
        path: the file.
        names: names of the results, as for `save_html`.

    Raises:
        OutputError: the file cannot be written.
        InvalidValueError: as for `save_html`.
    """
    from echo_load.report.markdown import markdown

    shown, labels = _named(results, names)
    _save(path, lambda: markdown(shown, labels))


def _named(
    results: Result | Sequence[Result], names: Sequence[str] | None
) -> tuple[Sequence[Result], tuple[str, ...]]:
    """Return results as a sequence, and the name of each.

    Raises:
        InvalidValueError: as for `save_html`.
    """
    shown = [results] if isinstance(results, Result) else results
    if not isinstance(shown, list | tuple):
        raise fields.wrong("results", results, "a Result or a list of Results")
    if not shown:
        raise InvalidValueError("`results` is empty; give at least one Result")
    for one in shown:
        _check(one)
    given = names if names is not None else [f"result {n}" for n in range(1, len(shown) + 1)]
    labels = fields.texts("names", given)
    if len(labels) != len(shown):
        raise InvalidValueError(f"`names` has {len(labels)} names for {len(shown)} results")
    return shown, labels


def _check(result: Result) -> None:
    fields.instance_of(Result)("result", result)


def _save(path: str | os.PathLike[str], make: Callable[[], bytes]) -> None:
    file = Path(fields.path("path", path))
    if lost := OutputFiles([file]).write([(file, make)]):
        raise OutputError(lost[0])
