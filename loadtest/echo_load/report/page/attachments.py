"""The results in a page, which offers them for download."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from echo_load.report.page.document import packed
from echo_load.report.page.traces import Run
from echo_load.results.result import Result

# Characters of all attachments of a page together: the page stays below 2.5 MB.
MOST_CHARACTERS = 320_000
# No result with more seconds than this fits, so it need not be compressed to find out.
_MOST_SECONDS = 20_000


@dataclass(frozen=True, slots=True)
class Attachment:
    """A result as a file in a page.

    Attributes:
        name: id of its element.
        file: name of the file that the browser saves.
        size: size of that file in bytes.
        content: its content, as `document.packed` returns it.
        whole: False if the figures of each second are left out, because they do not fit.
    """

    name: str
    file: str
    size: int
    content: str
    whole: bool


def attachments(runs: Sequence[Run]) -> list[Attachment | None]:
    """Return the attachment of each run; None for one that does not fit.

    An attachment that is whole has exactly the bytes of the result's own file. As long as they do
    not fit together, the largest one loses the figures of each second, and if that is not enough
    the largest one is left out.
    """
    found: list[Attachment | None] = [
        _attached(run, number, whole=_seconds(run.result) <= _MOST_SECONDS)
        for number, run in enumerate(runs)
    ]
    while sum(len(one.content) for one in found if one) > MOST_CHARACTERS:
        largest = max((one for one in found if one), key=lambda one: len(one.content))
        number = found.index(largest)
        found[number] = _attached(runs[number], number, whole=False) if largest.whole else None
    return found


def _attached(run: Run, number: int, *, whole: bool) -> Attachment:
    content = (run.result if whole else _without_seconds(run.result)).to_json()
    # A name that every file system accepts.
    stem = re.sub(r"[^\w.-]+", "-", run.name.removesuffix(".json"), flags=re.ASCII).strip("-.")
    return Attachment(
        f"result-{number}", f"{stem or 'result'}.json", len(content), packed(content), whole
    )


def _seconds(result: Result) -> int:
    return len(result.series) + sum(len(one.series) for one in result.by_target)


def _without_seconds(result: Result) -> Result:
    by_target = tuple(replace(one, series=[]) for one in result.by_target)
    return replace(result, series=[], by_target=by_target)
