"""Reports that are written to files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from echo_core.command_line.program import needs_extra
from echo_load.report.exports import hgrm, series_csv
from echo_load.report.junit import junit, junit_error
from echo_load.report.markdown import markdown, markdown_error
from echo_load.report.output_files import OutputFiles
from echo_load.results.result import Result


class ReportFiles:
    """The report files of a test, which are checked to be writable before the test.

    Args:
        output: file for the result as JSON.
        html: file for the HTML report.
        csv: file for the figures of each second.
        hgrm: file for the percentiles of the response time.
        junit: file for the outcome as JUnit XML.
        markdown: file for the summary in Markdown.
        inputs: files that are read and must not be overwritten.

    Raises:
        OutputError: a file cannot be written, is an input, or is named twice.
        MissingExtraError: a package that the HTML report needs is not installed.
    """

    def __init__(
        self,
        *,
        output: Path | None = None,
        html: Path | None = None,
        csv: Path | None = None,
        hgrm: Path | None = None,
        junit: Path | None = None,
        markdown: Path | None = None,
        inputs: Sequence[Path | str] = (),
    ) -> None:
        self._output, self._html, self._csv, self._hgrm = output, html, csv, hgrm
        self._junit, self._markdown = junit, markdown
        if html is not None:
            with needs_extra("report"):
                import echo_load.report.html  # noqa: F401  # fail now, not after a test
        paths = (output, html, csv, hgrm, junit, markdown)
        self._files = OutputFiles([path for path in paths if path is not None], inputs)

    def write(self, results: Sequence[Result], names: Sequence[str]) -> list[str]:
        """Write all files, and replace existing ones.

        Args:
            results: results to report; JSON, CSV and percentiles are of the first one only.
            names: names of the results.

        Returns:
            An error message for each file that could not be written.
        """
        return self._files.write(self._makers(results, names))

    def write_error(self, title: str, message: str) -> list[str]:
        """Write that a test has no result, because of an error, to the reports that can say so.

        Otherwise those of an earlier test would be taken for its reports.

        Args:
            title: the test.
            message: the error.

        Returns:
            An error message for each file that could not be written.
        """
        return self._files.write(
            (path, partial(make, title, message))
            for path, make in ((self._junit, junit_error), (self._markdown, markdown_error))
            if path is not None
        )

    def _makers(
        self, results: Sequence[Result], names: Sequence[str]
    ) -> list[tuple[Path, Callable[[], bytes]]]:
        result = results[0]
        makers: list[tuple[Path | None, Callable[[], bytes]]] = [
            (self._output, result.to_json),
            (self._csv, lambda: series_csv(result)),
            (self._hgrm, lambda: hgrm(result)),
            (self._html, lambda: _page(results, names)),
            (self._junit, lambda: junit(results, names)),
            (self._markdown, lambda: markdown(results, names)),
        ]
        return [(path, make) for path, make in makers if path is not None]


def _page(results: Sequence[Result], names: Sequence[str]) -> bytes:
    from echo_load.report.html import render

    return render(results, names)
