"""Write docs/options.md, the reference of all options, from the commands themselves.

python docs/make_options.py [FILE]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from command_pages import Page, pages

_REFERENCE = Path(__file__).parent / "options.md"
_BEGINNING = """\
# Options

All options of all commands, as `--help` shows them; `make reference` generates this page. How
flags, environment variables and TOML files combine is described in [settings.md](settings.md).
"""
_HEAD = "| option | environment | meaning |\n|---|---|---|\n"


def reference() -> str:
    """Return the whole page."""
    sections = [_section(page) for page in pages() if not page.subcommands]
    return "\n".join([_BEGINNING, *sections])


def _section(page: Page) -> str:
    summary = page.summary
    if page.name == "echo-load swarm":
        summary += " All of locust's own options work as well: `locust --help`."
    lines = []
    for group, rows in page.rows.items():
        if len(page.rows) > 1:
            lines.append(f"| **{group}** | | |\n")
        for row in rows:
            variable = f"`{row.variable}`" if row.variable else ""
            lines.append(f"| `{_cell(row.names)}` | {variable} | {_text(row.meaning)} |\n")
    usage = f"`{page.name} {page.usage}`"
    return f"## {page.name}\n\n{summary}\n\n{usage}\n\n{_HEAD}" + "".join(lines)


def _text(meaning: str) -> str:
    return _cell(" ".join(meaning.split())).replace("<", "&lt;").replace("*", "\\*")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", nargs="?", type=Path, default=_REFERENCE)
    parser.parse_args().file.write_text(reference(), encoding="utf-8")
