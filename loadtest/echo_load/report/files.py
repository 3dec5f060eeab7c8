"""Reports as files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from echo_core.command import needs_extra
from echo_load.errors import OutputError
from echo_load.report.exports import hgrm, series_csv
from echo_load.result import Result


class ReportFiles:
    """The files that were asked for; whether they can be written is found out at once.

    Args:
        output: of the result, as JSON.
        html: of the report to open in a browser.
        csv: of the figures by the second.
        hgrm: of the percentiles of the response time.

    Raises:
        OutputError: one of them cannot be written, or two are the same.
        MissingExtraError: the packages that make one of them are not installed.
    """

    def __init__(
        self,
        *,
        output: Path | None = None,
        html: Path | None = None,
        csv: Path | None = None,
        hgrm: Path | None = None,
    ) -> None:
        self._output, self._html, self._csv, self._hgrm = output, html, csv, hgrm
        if html is not None:
            with needs_extra("report"):
                import echo_load.report.html  # noqa: F401  # better missed now than after a test
        paths = [path for path in (output, html, csv, hgrm) if path is not None]
        for number, path in enumerate(paths):
            if _is_same_file(path, paths[:number]):
                raise OutputError(f"{path} cannot hold two reports; give each a file of its own")
            _check_writable(path)

    def write(self, results: Sequence[Result], names: Sequence[str]) -> None:
        """Write them all, in place of what was there.

        Args:
            results: what is reported; all but the report for browsers are of the first.
            names: what these are called.

        Raises:
            OutputError: one cannot be written after all; the others have been.
        """
        failures = []
        for path, make in self._makers(results, names):
            try:
                path.write_bytes(make())
            except OSError as error:
                failures.append(f"cannot write {path}: {error.strerror}")
        if failures:
            raise OutputError("; ".join(failures))

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


def _is_same_file(path: Path, others: Sequence[Path]) -> bool:
    """Whether writing would undo what was written; a device or a pipe takes one after the other."""
    return path.resolve() in {other.resolve() for other in others} and (
        path.is_file() or not path.exists()
    )


def _check_writable(path: Path) -> None:
    existed = path.exists()
    try:
        with path.open("ab"):
            pass
        if not existed:
            path.unlink()
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
