"""The documentation: its reference is current, its links lead somewhere, its commands exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
REFERENCE = ROOT / "docs" / "options.md"
COMMANDS = ("echo-server", "echo-client", "echo-load")


def test_the_reference_matches_the_commands(tmp_path: Path) -> None:
    written = tmp_path / "options.md"
    subprocess.run([sys.executable, ROOT / "docs" / "make_options.py", written], check=True)
    assert REFERENCE.read_text() == written.read_text(), "run make reference"


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.name))
def test_links_have_targets(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = page.parent / path if path else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


def typed(page: Path) -> Iterator[str]:
    """Yield the command lines of a page: at prompts, in tables and in sentences."""
    text = page.read_text()
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        joined = block.replace("\\\n", " ")
        yield from re.findall(r"^\s*\$ (.+)$", joined, re.MULTILINE)
    outside = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    yield from re.findall(r"`((?:echo-\w+) [^`]+)`", outside)


def options_of() -> dict[str, set[str]]:
    """The options of each command in the reference."""
    sections = re.split(r"^## ", REFERENCE.read_text(), flags=re.MULTILINE)[1:]
    return {
        section.partition("\n")[0]: set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", section))
        for section in sections
    }


@pytest.mark.parametrize(
    "page",
    # It may name options that no longer exist.
    [page for page in PAGES if page.name != "CHANGELOG.md"],
    ids=lambda page: str(page.name),
)
def test_options_shown_in_the_documentation_exist(page: Path) -> None:
    known = options_of()
    # Options of locust itself that the pages show.
    known["echo-load swarm"] |= {"--headless", "--master", "--worker", "--master-host", "--csv"}
    known["echo-load swarm"] |= {"--html", "--json", "-u", "-t"}
    for line in typed(page):
        words = shlex.split(line, comments=True)
        if not words or words[0] not in COMMANDS:
            continue
        levels = 3 if words[1:2] == ["lab"] else 2
        command = " ".join(words[:levels]) if words[0] == "echo-load" and words[1:] else words[0]
        if "…" in command or command == "echo-load":
            continue
        assert command in known, line
        for word in words[1:]:
            name = word.partition("=")[0]
            if re.fullmatch(r"--?[a-z][\w-]*", name):
                assert name in known[command] or name in ("-h", "--help"), line
