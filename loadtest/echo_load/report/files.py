"""Reports as files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from echo_core.command_line.program import needs_extra
from echo_load.report.exports import hgrm, series_csv
from echo_load.report.output_files import OutputFiles
from echo_load.results.result import Result


class ReportFiles:
    """The requested report files; whether they can be written is checked at once.

    Args:
        output: for the result, as JSON.
        html: for the report to open in a browser.
        csv: for the figures by the second.
        hgrm: for the percentiles of the response time.
        inputs: files that are read, and must not be written.

    Raises:
        OutputError: one of them cannot be written, is an input, or two are the same.
        MissingExtraError: the packages that make one of them are not installed.
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
        """Write all files, in place of existing ones.

        Args:
            results: what to report; only the report for browsers has more than the first.
            names: the names of the results.

        Returns:
            For each file that cannot be written after all: which, and why.
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
