"""The manual pages, as their readers see them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def manual(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pages as `make man` writes them, by their names."""
    folder = tmp_path_factory.mktemp("man")
    subprocess.run([sys.executable, ROOT / "docs" / "make_man.py", folder], check=True)
    return {path.name.removesuffix(".1"): path for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which the package is installed, without what it needs."""
    folder = tmp_path_factory.mktemp("installed")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    # What builds it is installed already.
    wheel = ("wheel", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", folder)
    subprocess.run([*pip, *wheel, ROOT], check=True)
    install = ("install", "--no-index", "--no-deps", "--ignore-installed", "--prefix", folder)
    subprocess.run([*pip, *install, *folder.glob("*.whl")], check=True)
    return folder


def shown(path: Path) -> str:
    """Return a page as `man` shows it on 80 columns."""
    if shutil.which("man") is None or shutil.which("groff") is None:
        pytest.skip("man-db or groff is not installed")
    return subprocess.run(
        ["man", "--warnings", "-l", path],
        capture_output=True,
        check=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "MANWIDTH": "80", "LC_ALL": "C.UTF-8"},
    ).stdout


def test_each_command_has_a_page(manual: dict[str, Path]) -> None:
    sections = re.findall(r"^## (.+)$", (ROOT / "docs" / "options.md").read_text(), re.MULTILINE)
    assert set(manual) == {name.replace(" ", "-") for name in sections} | {
        "echo-load",
        "echo-load-lab",
    }


def test_roff_has_nothing_to_complain_about(manual: dict[str, Path]) -> None:
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    for path in manual.values():
        ended = subprocess.run(
            ["groff", "-man", "-Tutf8", "-ww", "-z", path], capture_output=True, check=False
        )
        assert (ended.returncode, ended.stderr) == (0, b""), path.name


def test_mandoc_has_no_error(manual: dict[str, Path]) -> None:
    if shutil.which("mandoc") is None:
        pytest.skip("mandoc is not installed")
    ended = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "error", *manual.values()], capture_output=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, b"")


def test_a_page_shows_options_in_groups_examples_and_exit_codes(manual: dict[str, Path]) -> None:
    text = shown(manual["echo-load-run"])
    lines = [line.strip() for line in text.splitlines()]
    sections = [line for line in text.splitlines() if re.fullmatch(r"[A-Z][A-Z ]+", line)]
    assert sections == [
        *("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "ENVIRONMENT", "EXIT STATUS"),
        *("EXAMPLES", "SEE ALSO"),
    ]
    assert "echo-load-run - Load-test echo services and check every byte" in lines
    assert "echo-load run [OPTIONS] [TARGET]..." in lines
    assert lines.index("TLS") < lines.index("--tls-ca FILE") < lines.index("Verdict")
    assert "-c, --connections COUNT" in lines
    assert '"0-100/10s,100/30s,100-1000/30s"; with --rate, messages per' in text
    assert "echo-load run --churn 10 --tls-ca ca.pem tls://10.0.0.7:50008" in lines
    assert re.search(r"^ +99 +A threshold was crossed\.$", text, re.MULTILINE)
    assert "ECHO_LOAD_CONNECTIONS for --connections" in " ".join(lines)


def test_no_text_is_lost(manual: dict[str, Path]) -> None:
    text = " ".join(shown(manual["echo-server"]).split())
    # Characters that mean something to roff, or are none of ASCII.
    for part in (
        "tcp://HOST:PORT, tls://…, udp://…, unix:///PATH, unix://@NAME (abstract) or fd://N.",
        "KIND=TIME[+-JITTER]@PERCENT",
        "echo-server --host '*' --port 50007",
        'echo-server --fault "delay=50ms@10%" --fault "reset@0.1%"',
    ):
        assert part in text


def test_the_page_of_the_program_leads_to_those_of_its_commands(manual: dict[str, Path]) -> None:
    text = shown(manual["echo-load"])
    for name in manual:
        if re.fullmatch(r"echo-load-[a-z]+", name):
            assert f"{name}(1)" in text


@pytest.mark.slow
def test_a_wheel_has_the_pages(manual: dict[str, Path], installed: Path) -> None:
    pages = {path.stem: path for path in (installed / "share" / "man" / "man1").iterdir()}
    assert set(pages) == set(manual)
    for name, page in pages.items():
        assert page.read_text() == manual[name].read_text()


@pytest.mark.slow
@pytest.mark.parametrize("words", ["echo-server", "echo-load run", "echo-load lab"])
def test_man_finds_the_pages_of_programs_in_the_path(installed: Path, words: str) -> None:
    if shutil.which("man") is None:
        pytest.skip("man-db is not installed")
    ended = subprocess.run(
        ["man", "-w", *words.split()],
        capture_output=True,
        check=True,
        text=True,
        env={"PATH": f"{installed / 'bin'}:/usr/bin:/bin"},
    )
    name = words.replace(" ", "-")
    assert ended.stdout.splitlines()[0] == str(installed / "share" / "man" / "man1" / f"{name}.1")
