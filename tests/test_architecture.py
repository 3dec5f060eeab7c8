"""The arrows of the house: who may import whom."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

HOUSE = Path(__file__).parent.parent
PACKAGES = {
    "echo_core": HOUSE / "core",
    "echo_server": HOUSE / "server",
    "echo_client": HOUSE / "client",
    "echo_load": HOUSE / "loadtest",
}
MAY_IMPORT = {
    "echo_core": {"echo_core"},
    "echo_server": {"echo_server", "echo_core"},
    "echo_client": {"echo_client", "echo_core"},
    "echo_load": {"echo_load", "echo_client", "echo_core"},
}
GEVENT_FREE = {"echo_core", "echo_client"}


def rooms(package: str) -> list[Path]:
    found = sorted((PACKAGES[package] / package).rglob("*.py"))
    assert found
    return found


def imported(room: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(room.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{room}: a relative import"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


@pytest.mark.parametrize("package", PACKAGES)
def test_arrows_point_one_way(package: str) -> None:
    for room in rooms(package):
        for name in imported(room):
            top = name.partition(".")[0]
            assert top not in PACKAGES or top in MAY_IMPORT[package], f"{room} imports {name}"
            assert not (package in GEVENT_FREE and top == "gevent"), f"{room} imports gevent"


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_imports_a_command_line_but_its_program(package: str) -> None:
    for room in rooms(package):
        if room.name != "__main__.py":
            assert not any(name.endswith(".cli") for name in imported(room)), room


@pytest.mark.parametrize("package", PACKAGES)
def test_rooms_are_small_and_have_names(package: str) -> None:
    for room in rooms(package):
        assert len(room.read_text().splitlines()) <= 600, room
        assert room.stem not in {"utils", "helpers", "common", "misc"}, room
