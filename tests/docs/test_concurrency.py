"""The page on threads, processes and coroutines: its rows name what there is."""

from __future__ import annotations

import re
from pathlib import Path

from echo_load.lab.catalogue import chapters

PAGE = Path(__file__).parents[2] / "docs" / "concurrency.md"
NAMES = [one.name for chapter in chapters() for one in chapter.experiments]
# A topic, its experiment, and where it is used; that the files exist is tested of all links.
ROW = re.compile(r"^\| (?P<topic>[^|]+) \| (?:`(?P<name>[\w-]+)`)? \| (?P<place>[^|]+) \|$", re.M)


def test_each_row_names_an_experiment_and_where_it_is_used() -> None:
    table = PAGE.read_text().partition("## Where each topic is used")[2]
    rows = [row for row in ROW.finditer(table) if row["topic"] != "topic"]
    assert [row["name"] for row in rows if row["name"]] == NAMES
    for row in rows:
        assert "](" in row["place"] or "`echo-" in row["place"] or "nowhere: " in row["place"], row


def test_the_verdicts_match_the_experiments() -> None:
    shown = re.findall(r"^\| `([\w-]+)` \| “(.+)” \|", PAGE.read_text(), re.MULTILINE)
    claims = {one.name: one.claim for chapter in chapters() for one in chapter.experiments}
    assert dict(shown) == claims
