"""Reports that are written to files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from echo_core.command_line.program import needs_extra
from echo_load.report.exports import hgrm, series_csv
from echo_load.report.output_files import OutputFiles
from echo_load.results.result import Result


class ReportFiles:
    """The report files of a test, which are checked to be writable before the test.

    Args:
        output: file for the result as JSON.
        html: file for the HTML report.
        csv: file for the figures of each second.
        hgrm: file for the percentiles of the response time.
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
        inputs: Sequence[Path | str] = (),
    ) -> None:
        self._output, self._html, self._csv, self._hgrm = output, html, csv, hgrm
        if html is not None:
            with needs_extra("report"):
                import echo_load.report.html  # noqa: F401  # fail now, not after a test
        paths = [path for path in (output, html, csv, hgrm) if path is not None]
        self._files = OutputFiles(paths, inputs)

    def write(self, results: Sequence[Result], names: Sequence[str]) -> list[str]:
        """Write all files, and replace existing ones.

        Args:
            results: results to report; files other than the HTML report contain the first one only.
            names: names of the results.

        Returns:
            An error message for each file that could not be written.
        """
        return self._files.write(self._makers(results, names))

    def _makers(
        self, results: Sequence[Result], names: Sequence[str]
    ) -> list[tuple[Path, Callable[[], bytes]]]:
        result = results[0]
        makers: list[tuple[Path | None, Callable[[], bytes]]] = [
            (self._output, result.to_json),
            (self._csv, lambda: series_csv(result)),
            (self._hgrm, lambda: hgrm(result)),
            (self._html, lambda: _page(results, names)),
        ]
        return [(path, make) for path, make in makers if path is not None]


def _page(results: Sequence[Result], names: Sequence[str]) -> bytes:
    from echo_load.report.html import render

    return render(results, names)
