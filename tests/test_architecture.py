"""The layout: which package may import which, and how large a module may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "echo_core": ROOT / "core",
    "echo_server": ROOT / "server",
    "echo_client": ROOT / "client",
    "echo_load": ROOT / "loadtest",
}
MAY_IMPORT = {
    "echo_core": {"echo_core"},
    "echo_server": {"echo_server", "echo_core"},
    "echo_client": {"echo_client", "echo_core"},
    "echo_load": {"echo_load", "echo_client", "echo_core"},
}
GEVENT_FREE = {"echo_core", "echo_client"}
# The folders of a package in the order in which their imports point: down. What stands beside them
# is there for all.
ORDER = {
    "echo_load": (
        "commands",
        "lab",
        "swarm",
        "report",
        "limits",
        "runner",
        "results",
        "engines",
        "plan",
        "measure",
    ),
    "echo_server": ("processes", "streams", "metrics"),
}
# Beside streams: neither imports the other.
BESIDE = {("echo_server", "datagrams"): "streams"}


def modules(package: str) -> list[Path]:
    found = sorted((PACKAGES[package] / package).rglob("*.py"))
    assert found
    return found


def imported(module: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way(package: str) -> None:
    for module in modules(package):
        for name in imported(module):
            top = name.partition(".")[0]
            assert top not in PACKAGES or top in MAY_IMPORT[package], f"{module} imports {name}"
            assert not (package in GEVENT_FREE and top == "gevent"), f"{module} imports gevent"


def folder(package: str, parts: Sequence[str]) -> str:
    """The folder of a package that a module is in; "" for those beside the folders."""
    named = parts[1] if len(parts) > 1 else ""
    return named if (PACKAGES[package] / package / named).is_dir() else ""


@pytest.mark.parametrize("package", ORDER)
def test_imports_point_down_the_folders(package: str) -> None:
    order = ORDER[package]
    assert set(order) | {one for name, one in BESIDE if name == package} == {
        one.parent.name for one in (PACKAGES[package] / package).glob("*/__init__.py")
    }
    for module in modules(package):
        here = folder(package, module.relative_to(PACKAGES[package]).parts)
        for name in imported(module):
            parts = name.split(".")
            there = folder(package, parts) if parts[0] == package else ""
            if not (here and there) or here == there:
                continue
            level = {one: BESIDE.get((package, one), one) for one in (here, there)}
            assert order.index(level[here]) < order.index(level[there]), f"{module} imports {name}"


# A plan checks itself with functions that take a plan, which its module is too large to hold.
MUTUAL = {("echo_load.plan.plan", "echo_load.plan.validation")}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_modules_import_each_other(package: str) -> None:
    """Not even for their types, or late."""
    root = PACKAGES[package]
    names = {
        ".".join(one.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): one
        for one in modules(package)
    }
    graph = {
        # A folder imports its modules, to hand out their names; these do not need the folder.
        name: {one for one in imported(module) if one in names and names[one].stem != "__init__"}
        for name, module in names.items()
    }
    for one, other in MUTUAL:
        graph.get(other, set()).discard(one)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_imports_a_command_line_but_its_program(package: str) -> None:
    for module in modules(package):
        if module.name != "__main__.py":
            assert not any(name.endswith(".cli") for name in imported(module)), module


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_are_small_and_have_names(package: str) -> None:
    for module in modules(package):
        assert len(module.read_text().splitlines()) <= 600, module
        assert module.stem not in {"utils", "helpers", "common", "misc"}, module
