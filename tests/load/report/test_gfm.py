"""Text, code and tables in Markdown, read again by a Markdown parser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.table import Table
from rich.text import Text

from echo_load.report.gfm import block, code, escaped, table
from echo_load.report.plain_text import printable

PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
# Characters that mean something in Markdown, to be frequent among the examples.
TEXTS = st.text(st.one_of(st.sampled_from("`|\\*_~<>[]()!#&@:$+-.1 \n\x1b\r\t"), st.characters()))


def tokens(markdown: str) -> Iterator[Token]:
    for token in PARSER.parse(markdown):
        yield from [token] if token.children is None else token.children


def shown(markdown: str, around: set[str]) -> str:
    """Return what a reader sees of text within these elements, if there are no others."""
    seen = ""
    for token in tokens(markdown):
        if token.type in {"text", "code_inline"}:
            seen += token.content
        else:
            assert token.tag in around, (token.type, markdown)
    return seen


def in_one_line(text: str) -> str:
    return " ".join(printable(text).split())


@given(TEXTS)
def test_text_is_shown_as_it_is(text: str) -> None:
    expected = in_one_line(text)
    for write in (escaped, code):
        assert shown(write(text), {"p"}) == expected
        assert shown(f"a: {write(text)}.", {"p"}) == f"a: {expected}."
        assert shown(f"- {write(text)}", {"p", "ul", "li"}) == expected


@given(TEXTS, TEXTS)
def test_text_in_a_table_stays_in_its_cell(first: str, second: str) -> None:
    made = Table()
    made.add_column(Text(in_one_line(first)))
    made.add_column("b", justify="right")
    made.add_row(Text(in_one_line(second), "code"), Text(in_one_line(first)))
    made.add_row("1", Text(in_one_line(second)))
    lines = list(tokens(table(made)))
    assert sum(token.type in {"th_open", "td_open"} for token in lines) == 6
    around = {"table", "thead", "tbody", "tr", "th", "td"}
    one, other = in_one_line(first), in_one_line(second)
    assert shown(table(made), around) == f"{one}b{other}{one}1{other}"


@given(TEXTS)
def test_a_block_ends_where_its_text_ends(text: str) -> None:
    (fence,) = PARSER.parse(block(text))
    assert (fence.type, fence.content) == ("fence", f"{printable(text)}\n")


@pytest.mark.parametrize("text", ["ask @team", "as in #12", "x :tada: y", "a:1234:", "1. first"])
def test_what_github_replaces_is_code(text: str) -> None:
    assert escaped(text) == f"`{text}`"


@pytest.mark.parametrize(
    "text", ["at 12:34:56", "127.0.0.1:45287: refused", "user.name", "100 msg/s, p99 3 ms"]
)
def test_ordinary_text_is_unchanged(text: str) -> None:
    assert escaped(text) == text
