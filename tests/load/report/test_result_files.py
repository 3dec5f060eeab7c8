"""Result and report files: read again, refused, or found unwritable before the test."""

from __future__ import annotations

import json
import os
import select
import subprocess
from pathlib import Path

import pytest

from echo_load.results.result import load_result
from support.processes import DEADLINE, LOAD, StartServer, environment, run, until

SHORT = ("-c", "2", "-n", "20")


@pytest.fixture
def kept(start_server: StartServer, tmp_path: Path) -> Path:
    """The result of a test, as a file."""
    path = tmp_path / "kept.json"
    ended = run([*LOAD, "run", start_server().url, *SHORT, "-o", str(path)])
    assert ended.returncode == 0, ended.stderr.decode()
    return path


def complaint(*arguments: object) -> str:
    """The one line of a command that must exit with 2."""
    ended = run([*LOAD, *map(str, arguments)])
    lines = ended.stderr.decode().splitlines()
    assert (ended.returncode, len(lines), ended.stdout) == (2, 1, b""), lines
    return lines[0]


def test_a_result_is_read_as_it_was_written(kept: Path) -> None:
    assert load_result(kept).to_json() == kept.read_bytes()


@pytest.mark.parametrize("command", ["report", "compare"])
def test_what_is_no_whole_result_is_refused(kept: Path, command: str) -> None:
    content = kept.read_bytes()

    def said() -> str:
        return complaint(command, kept, kept)

    kept.write_bytes(content[: len(content) // 2])
    assert f"{kept} is not a complete result of echo-load: Input data was truncated" in said()
    kept.write_bytes(b"")
    assert "is not a complete result of echo-load: Input data was truncated" in said()
    kept.write_bytes(b"\xff\xfe\x00nonsense")
    assert "is not a complete result of echo-load" in said()
    kept.write_bytes(b'{"schema": "echoswarm/result/2", "anything": []}')
    assert said().endswith(
        f"error: {kept}: its schema is 'echoswarm/result/2'; this version reads "
        "'echoswarm/result/1'"
    )
    kept.write_bytes(b'{"schema": "echoswarm/result/1"}')
    assert "Object missing required field" in said()
    changed = json.loads(content)
    changed["totals"]["messages"] = "many"
    kept.write_text(json.dumps(changed))
    assert "Expected `int`, got `str` - at `$.totals.messages`" in said()
    changed = json.loads(content)
    changed["plan"]["connections"] = -1
    kept.write_text(json.dumps(changed))
    assert "-1 connections: not between 1 and" in said()
    kept.unlink()
    assert said().endswith(f"error: cannot read {kept}: No such file or directory")
    kept.mkdir()
    assert said().endswith(f"error: cannot read {kept}: Is a directory")


def test_an_invalid_histogram_is_refused(kept: Path, tmp_path: Path) -> None:
    changed = json.loads(kept.read_bytes())
    changed["latency_us"]["response"]["histogram"] = "nonsense"
    kept.write_text(json.dumps(changed))
    for option in ("--hgrm", "--html"):
        assert complaint("report", kept, option, tmp_path / "out").endswith(
            f"error: {kept} is not a complete result of echo-load: not an encoded HdrHistogram"
        )


def test_nothing_to_report_or_to_compare() -> None:
    assert "Missing argument 'RESULT.json...'" in complaint("report")
    assert "Missing argument 'RESULT.json...'" in complaint("compare")


def test_one_result_is_compared_with_nothing(kept: Path) -> None:
    assert "there is nothing to compare; give two results or more" in complaint("compare", kept)


def test_a_series_is_of_one_result(kept: Path, tmp_path: Path) -> None:
    for option in ("--csv", "--hgrm"):
        assert "--csv and --hgrm take one result; only --html takes several" in complaint(
            "report", kept, kept, option, tmp_path / "out"
        )


@pytest.mark.parametrize("option", ["-o", "--html", "--csv", "--hgrm"])
def test_a_report_that_cannot_be_written_is_found_before_the_test(
    tmp_path: Path, option: str
) -> None:
    # Nothing listens there: a test that began would fail with exit code 1.
    test = ("run", "127.0.0.1:9", *SHORT)
    missing = tmp_path / "missing" / "report"
    assert complaint(*test, option, missing).endswith(
        f"error: cannot write {missing}: No such file or directory"
    )
    assert "is a directory" in complaint(*test, option, tmp_path)


def test_two_reports_are_not_written_to_one_file(tmp_path: Path) -> None:
    path = tmp_path / "both"
    assert f"{path} is given for two outputs; give each a file of its own" in complaint(
        "run", "127.0.0.1:9", *SHORT, "-o", path, "--csv", path
    )
    assert not path.exists()


@pytest.mark.parametrize(
    ("threshold", "code", "options"),
    [("max<1h", 1, []), ("max<1us", 99, []), ("max<1us", 99, ["--json"])],
)
def test_a_report_that_cannot_be_written_after_all_costs_no_other(
    start_server: StartServer, tmp_path: Path, threshold: str, code: int, options: list[str]
) -> None:
    csv = tmp_path / "series.csv"
    ended = run(
        [
            *(*LOAD, "run", start_server().url, *SHORT, "--threshold", threshold, *options),
            *("-o", "/dev/full", "--csv", str(csv), "--html", str(tmp_path / "a.html")),
        ]
    )
    assert ended.returncode == code
    assert ended.stderr.decode().splitlines()[-1] == (
        "echo-load: error: cannot write /dev/full: No space left on device"
    )
    assert csv.read_text().startswith("second,")
    assert (tmp_path / "a.html").read_bytes().lstrip().startswith(b"<!")
    if options:
        assert json.loads(ended.stdout)["verdict"] == "crossed"


def test_a_report_that_cannot_be_written_leaves_the_one_before(
    start_server: StartServer, tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    page.write_text("the one before")
    test = [*LOAD, "run", start_server().url, *SHORT, "--html", str(page)]
    # As on a disk that has space for its beginning only.
    ended = run(["prlimit", "--fsize=100000", *test])
    assert ended.returncode == 1
    assert f"cannot write {page}: File too large" in ended.stderr.decode()
    assert page.read_text() == "the one before"
    assert list(tmp_path.glob("*echo-load*")) == []
    page.chmod(0o640)
    assert run(test).returncode == 0
    assert page.stat().st_size > 100_000
    assert page.stat().st_mode & 0o777 == 0o640


def test_a_pipe_with_a_name(start_server: StartServer, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    test = [*LOAD, "run", start_server().url, *SHORT, "-o", str(pipe)]
    assert complaint(*test[len(LOAD) :]).endswith(
        f"error: cannot write {pipe}: No such device or address"
    )
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    ended = subprocess.Popen(test, stdout=subprocess.DEVNULL, env=environment())
    os.set_blocking(reading, True)
    with os.fdopen(reading, "rb") as reader:
        until(lambda: select.select([reader], [], [], 0)[0], "the result")
        assert json.loads(reader.read())["verdict"] == "passed"
    assert ended.wait(DEADLINE) == 0


def test_no_output_is_an_input(kept: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(kept)
    before = kept.read_bytes()
    for option in ("--html", "--csv", "--hgrm"):
        for path in (kept, link):
            assert "is an input of this command; give another file to write" in complaint(
                "report", kept, option, path
            )
    test = ("run", "127.0.0.1:9", *SHORT)
    assert "is an input of this command" in complaint(*test, "--payload-file", kept, "-o", link)
    tls = ("run", "tls://127.0.0.1:9", *SHORT)
    for options in (("--tls-ca",), ("--tls-cert",), ("--tls-cert", "--tls-key")):
        named = [part for option in options for part in (option, kept)]
        assert "is an input of this command" in complaint(*tls, *named, "--html", kept)
    settings = tmp_path / "settings.toml"
    settings.write_text('timeout = "1s"\n')
    link_to_settings = tmp_path / "settings.json"
    link_to_settings.symlink_to(settings)
    assert "is an input of this command" in complaint(
        *test, "--config", settings, "-o", link_to_settings
    )
    assert kept.read_bytes() == before


@pytest.mark.parametrize("option", ["-o", "--html", "--csv", "--hgrm"])
def test_a_dash_is_no_file(option: str) -> None:
    assert "- is not a file; use --json to print the result" in complaint(
        "run", "127.0.0.1:9", *SHORT, option, "-"
    )


def test_all_reports_of_a_test_are_those_of_its_result(
    start_server: StartServer, tmp_path: Path
) -> None:
    paths = {name: tmp_path / f"test.{name}" for name in ("json", "html", "csv", "hgrm")}
    ended = run(
        [
            *(*LOAD, "run", start_server().url, *SHORT, "-o", str(paths["json"])),
            *(part for name in ("html", "csv", "hgrm") for part in (f"--{name}", str(paths[name]))),
        ]
    )
    assert ended.returncode == 0, ended.stderr.decode()
    later = {name: tmp_path / f"later.{name}" for name in ("csv", "hgrm")}
    ended = run(
        [
            *(*LOAD, "report", str(paths["json"])),
            *(part for name, path in later.items() for part in (f"--{name}", str(path))),
        ]
    )
    assert (ended.returncode, ended.stdout) == (0, b"")
    for name, path in later.items():
        assert path.read_bytes() == paths[name].read_bytes()


def test_several_results_are_printed_with_their_names(kept: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_bytes(kept.read_bytes())
    text = run([*LOAD, "report", str(kept), str(other)]).stdout.decode()
    assert text.index("kept\n") < text.index("PASSED") < text.index("\nother\n")


def test_a_reader_of_a_report_may_leave(kept: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    for command in (["report", str(kept)], ["compare", str(kept), str(kept)]):
        ended = subprocess.run(
            [*LOAD, *command],
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=DEADLINE,
            check=False,
            env=environment(),
        )
        assert (ended.returncode, ended.stderr) == (0, b"")
    os.close(writing)
