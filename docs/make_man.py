"""Write the manual pages, one for each command, from the commands themselves.

python docs/make_man.py [FOLDER]
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from command_pages import Page, pages

_FOLDER = Path(__file__).parents[1] / "build" / "man"


def write_manual(folder: Path, version: str) -> None:
    """Write a file for each page.

    Args:
        folder: directory in which they are written.
        version: version of the package, which each page shows.
    """
    every = list(pages())
    names = [page.name for page in every]
    for page in every:
        text = "\n".join(_lines(page, names, version)) + "\n"
        (folder / f"{_title(page.name)}.1").write_text(text, encoding="ascii")


def _title(name: str) -> str:
    return name.replace(" ", "-")


def _lines(page: Page, names: list[str], version: str) -> Iterator[str]:
    title = _title(page.name)
    yield f'.TH {_plain(title.upper())} 1 "" "echoswarm {version}" "User Commands"'
    # Neither hyphenate words nor stretch lines: options and examples stand in the text.
    yield from (".nh", ".ad l")
    yield from (".SH NAME", rf"{_plain(title)} \- {_plain(page.summary.removesuffix('.'))}")
    yield from (".SH SYNOPSIS", rf"\fB{_plain(page.name)}\fR {_plain(page.usage)}")
    yield ".SH DESCRIPTION"
    for paragraph in page.paragraphs:
        yield from (".PP", _text(paragraph))
    if page.subcommands:
        yield ".SH COMMANDS"
        for command in page.subcommands:
            yield from (".TP", rf"\fB{_plain(_title(command.name))}\fR(1)", _text(command.summary))
    yield from _options(page)
    if page.exit_codes:
        yield ".SH EXIT STATUS"
        for code, meaning in page.exit_codes:
            yield from (".TP", rf"\fB{code}\fR", _text(meaning[:1].upper() + meaning[1:] + "."))
    if page.examples:
        yield ".SH EXAMPLES"
        for example in page.examples:
            yield from (".PP", _text(f"{example.purpose}:"), ".PP", ".RS 4", ".nf")
            yield from (_text(example.line), ".fi", ".RE")
    others = [_title(name) for name in names if name != page.name and _are_related(name, page.name)]
    yield from (".SH SEE ALSO", ",\n".join(rf"\fB{_plain(one)}\fR(1)" for one in others))


def _options(page: Page) -> Iterator[str]:
    yield ".SH OPTIONS"
    for group, rows in page.rows.items():
        if len(page.rows) > 1:
            yield f".SS {_plain(group)}"
        for row in rows:
            yield from (".TP", _names(row.names), _text(row.meaning))
    variables = {
        option: row.variable
        for rows in page.rows.values()
        for row in rows
        for option in re.findall(r"--[\w-]+|TARGET", row.names)
        if row.variable
    }
    target = variables.pop("TARGET", None)
    for option, variable in list(variables.items())[:1]:
        text = (
            "Each option can also be set by an environment variable that is named after it, such "
            f"as `{variable}` for `{option}`"
        )
        text += f", and the target by `{target}`. " if target else ". "
        yield from (".SH ENVIRONMENT", _text(text + "The command line overrides the environment."))


def _are_related(name: str, other: str) -> bool:
    """Return whether a page refers to another: to programs, and to commands of the same group."""
    return " " not in name or name.rpartition(" ")[0] == other.rpartition(" ")[0]


def _names(names: str) -> str:
    r"""Return the spellings of an option in bold, and what it takes in italics."""
    parts = re.split(r"(--?[\w-]+)", names)
    return "".join(
        rf"\fB{_plain(part)}\fR" if number % 2 else re.sub(r"(\S.*\S|\S)", _italic, part)
        for number, part in enumerate(parts)
    )


def _italic(found: re.Match[str]) -> str:
    text = _plain(found[0])
    return text if text in {",", "/"} else rf"\fI{text}\fR"


def _text(text: str) -> str:
    """Return a line of text, with what stands in backquotes in bold."""
    bold = re.sub(r"`([^`]+)`", lambda found: f"\0{found[1]}\1", " ".join(text.split()))
    line = _plain(bold).replace("\0", r"\fB").replace("\1", r"\fR")
    # A line that begins with one of these would be a request.
    return rf"\&{line}" if line.startswith((".", "'", r"\(aq")) else line


def _plain(text: str) -> str:
    """Return a text in which nothing has a meaning for roff."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq")
    escaped = escaped.replace("`", r"\(ga").replace("^", r"\(ha").replace("~", r"\(ti")
    return "".join(one if ord(one) < 127 else rf"\[u{ord(one):04X}]" for one in escaped)


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if sys.argv[1:] else _FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    write_manual(folder, metadata.version("echoswarm"))
