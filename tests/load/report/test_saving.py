"""Results saved from Python."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from echo_core.errors import InvalidValueError
from echo_load.errors import OutputError, ResultFileError
from echo_load.report.saving import save_csv, save_html, save_junit, save_markdown, save_result
from echo_load.results.result import Result, load_result
from support.processes import LOAD, run

# Stands for the result of a test.
RESULT = object()
REPORT: Callable[..., None] = save_html


def test_a_saved_result_is_loaded_again(result: Result, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("replaced")
    save_result(result, str(file))
    assert load_result(str(file)) == load_result(file) == result
    save_csv(result, tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text().startswith("second,repeat,stage,connections,messages")


def test_a_report_has_one_or_several_results(result: Result, tmp_path: Path) -> None:
    page = tmp_path / "a.html"
    save_html(result, page)
    assert result.targets[0] in page.read_text()
    save_html([result, result], page, names=["before it", "after it"])
    assert all(name in page.read_text() for name in ("before it", "after it"))
    save_html((result, result), page)
    assert "result 2" in page.read_text()


def test_junit_and_markdown_are_those_of_the_commands(result: Result, tmp_path: Path) -> None:
    saved, written = tmp_path / "saved.json", tmp_path / "written"
    save_result(result, saved)
    for save, option in ((save_junit, "--junit"), (save_markdown, "--markdown")):
        assert run([*LOAD, "report", str(saved), option, str(written)]).returncode == 0
        save(result, tmp_path / "one")
        assert (tmp_path / "one").read_bytes() == written.read_bytes()
        save([result, result], tmp_path / "both", names=["before it", "after it"])
        assert "before it" in (tmp_path / "both").read_text()
        save((result, result), tmp_path / "both")
        assert "result 2" in (tmp_path / "both").read_text()


@pytest.mark.parametrize(
    ("function", "arguments", "expected"),
    [
        (save_result, ("x", "y"), "`result` cannot be of type str; give a Result"),
        (save_csv, (None, "y"), "`result` cannot be None; give a Result"),
        (save_result, (RESULT, 5), "`path` cannot be of type int; give the path of a file"),
        (save_result, (RESULT, "\0"), "`path` '\\x00' has a null character"),
        (save_html, (None, "y"), "`results` cannot be None; give a Result or a list"),
        (save_html, ([], "y"), "`results` is empty; give at least one Result"),
        (save_html, ([RESULT, 5], "y"), "`result` cannot be of type int; give a Result"),
        (partial(save_html, names=["a", "b"]), (RESULT, "y"), "`names` has 2 names for 1 results"),
        (partial(REPORT, names=[5]), (RESULT, "y"), "`names` has an item of type int"),
        (save_junit, ([], "y"), "`results` is empty; give at least one Result"),
        (save_markdown, (None, "y"), "`results` cannot be None; give a Result or a list"),
        (load_result, (None,), "`path` cannot be None; give the path of a file"),
    ],
)
def test_wrong_arguments_are_named(
    function: Callable[..., object], arguments: tuple[Any, ...], expected: str, result: Result
) -> None:
    given = [
        [result if one is RESULT else one for one in argument]
        if isinstance(argument, list)
        else result
        if argument is RESULT
        else argument
        for argument in arguments
    ]
    with pytest.raises(InvalidValueError) as caught:
        function(*given)
    assert expected in str(caught.value)


def test_files_that_cannot_be_written_or_read_are_named(result: Result, tmp_path: Path) -> None:
    for save in (save_result, save_csv, save_html, save_junit, save_markdown):
        with pytest.raises(OutputError, match=f"^cannot write {tmp_path}: Is a directory$"):
            save(result, tmp_path)
    with pytest.raises(ResultFileError, match=r"^cannot read .*none: No such file"):
        load_result(tmp_path / "none")
