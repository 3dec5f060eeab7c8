"""Result and report files: reading, writing, and errors that are found before a test."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from pathlib import Path

import pytest

from echo_load.report.output_files import OutputFiles
from echo_load.results.result import load_result
from support.processes import DEADLINE, LOAD, StartServer, environment, run, until

SHORT = ("-c", "2", "-n", "20")
REPORTS = ("--html", "--csv", "--hgrm", "--junit", "--markdown")


@pytest.fixture
def kept(start_server: StartServer, tmp_path: Path) -> Path:
    """Return the path of a result file."""
    path = tmp_path / "kept.json"
    ended = run([*LOAD, "run", start_server().url, *SHORT, "-o", str(path)])
    assert ended.returncode == 0, ended.stderr.decode()
    return path


def refusal(*arguments: object) -> str:
    """Run a command that must exit with 2; return its only line."""
    ended = run([*LOAD, *map(str, arguments)])
    lines = ended.stderr.decode().splitlines()
    assert (ended.returncode, len(lines), ended.stdout) == (2, 1, b""), lines
    return lines[0]


def test_a_result_is_read_as_it_was_written(kept: Path) -> None:
    assert load_result(kept).to_json() == kept.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("command", ["report", "compare"])
def test_files_that_are_not_complete_results_are_refused(kept: Path, command: str) -> None:
    content = kept.read_bytes()

    def message() -> str:
        return refusal(command, kept, kept)

    # Not within a number, which would be malformed.
    kept.write_bytes(content[: content.index(b'"series"')])
    assert f"{kept} is not a complete result of echo-load: Input data was truncated" in message()
    kept.write_bytes(b"")
    assert "is not a complete result of echo-load: Input data was truncated" in message()
    kept.write_bytes(b"\xff\xfe\x00nonsense")
    assert "is not a complete result of echo-load" in message()
    kept.write_bytes(b'{"schema": "echoswarm/result/2", "anything": []}')
    assert message().endswith(
        f"error: {kept}: its schema is 'echoswarm/result/2'; this version reads "
        "'echoswarm/result/1'"
    )
    kept.write_bytes(b'{"schema": "echoswarm/result/1"}')
    assert "Object missing required field" in message()
    changed = json.loads(content)
    changed["totals"]["messages"] = "many"
    kept.write_text(json.dumps(changed))
    assert "Expected `int`, got `str` - at `$.totals.messages`" in message()
    changed = json.loads(content)
    changed["plan"]["connections"] = -1
    kept.write_text(json.dumps(changed))
    assert "`connections` -1 is not between 1 and" in message()
    kept.unlink()
    assert message().endswith(f"error: cannot read {kept}: No such file or directory")
    kept.mkdir()
    assert message().endswith(f"error: cannot read {kept}: Is a directory")


@pytest.mark.slow
def test_an_invalid_histogram_is_refused(kept: Path, tmp_path: Path) -> None:
    changed = json.loads(kept.read_bytes())
    changed["latency_us"]["response"]["histogram"] = "nonsense"
    kept.write_text(json.dumps(changed))
    for option in ("--hgrm", "--html"):
        assert refusal("report", kept, option, tmp_path / "out").endswith(
            f"error: {kept} is not a complete result of echo-load: not an encoded HdrHistogram"
        )


def test_missing_arguments_are_refused() -> None:
    assert "Missing argument 'RESULT.json...'" in refusal("report")
    assert "Missing argument 'RESULT.json...'" in refusal("compare")


@pytest.mark.slow
def test_a_single_result_cannot_be_compared(kept: Path) -> None:
    assert "there is nothing to compare; give two results or more" in refusal("compare", kept)


@pytest.mark.slow
def test_a_series_of_several_results_is_refused(kept: Path, tmp_path: Path) -> None:
    for option in ("--csv", "--hgrm"):
        assert "--csv and --hgrm take one result; the other reports take several" in refusal(
            "report", kept, kept, option, tmp_path / "out"
        )


@pytest.mark.parametrize("option", ["-o", *REPORTS])
def test_an_unwritable_report_is_refused_before_the_test(tmp_path: Path, option: str) -> None:
    # Nothing listens there, so that a test would fail with exit code 1.
    test = ("run", "127.0.0.1:9", *SHORT)
    missing = tmp_path / "missing" / "report"
    assert refusal(*test, option, missing).endswith(
        f"error: cannot write {missing}: No such file or directory"
    )
    assert "is a directory" in refusal(*test, option, tmp_path)


def test_two_reports_are_not_written_to_one_file(tmp_path: Path) -> None:
    path = tmp_path / "both"
    assert f"{path} is given for two outputs; give each a file of its own" in refusal(
        "run", "127.0.0.1:9", *SHORT, "-o", path, "--csv", path
    )
    assert not path.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("threshold", "code", "options"),
    [("max<1h", 1, []), ("max<1us", 99, []), ("max<1us", 99, ["--json"])],
)
def test_a_failure_to_write_a_report_does_not_prevent_others(
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


@pytest.mark.slow
def test_a_failure_to_write_a_report_keeps_the_previous_one(
    start_server: StartServer, tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    page.write_text("the one before")
    test = [*LOAD, "run", start_server().url, *SHORT, "--html", str(page)]
    # Like a disk with space for the beginning of the file only.
    ended = run(["prlimit", "--fsize=100000", *test])
    assert ended.returncode == 1
    assert f"cannot write {page}: File too large" in ended.stderr.decode()
    assert page.read_text() == "the one before"
    assert list(tmp_path.glob("*echo-load*")) == []
    page.chmod(0o640)
    assert run(test).returncode == 0
    assert page.stat().st_size > 100_000
    assert page.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("existed", [True, False])
def test_a_signal_while_a_file_is_written_waits_for_its_end(tmp_path: Path, existed: bool) -> None:
    path = tmp_path / "result.json"
    if existed:
        path.write_text("the one before")

    def make() -> bytes:
        signal.raise_signal(signal.SIGINT)
        return b"whole"

    with pytest.raises(KeyboardInterrupt):
        OutputFiles([path]).write([(path, make)])
    assert path.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [path]


def test_a_report_is_written_to_a_named_pipe(start_server: StartServer, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    test = [*LOAD, "run", start_server().url, *SHORT, "-o", str(pipe)]
    assert refusal(*test[len(LOAD) :]).endswith(
        f"error: cannot write {pipe}: No such device or address"
    )
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    ended = subprocess.Popen(test, stdout=subprocess.DEVNULL, env=environment())
    os.set_blocking(reading, True)
    with os.fdopen(reading, "rb") as reader:
        until(lambda: select.select([reader], [], [], 0)[0], "the result")
        assert json.loads(reader.read())["verdict"] == "passed"
    assert ended.wait(DEADLINE) == 0


@pytest.mark.slow
def test_an_output_must_not_be_an_input(kept: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(kept)
    before = kept.read_bytes()
    for option in REPORTS:
        for path in (kept, link):
            assert "is an input of this command; give another file to write" in refusal(
                "report", kept, option, path
            )
    test = ("run", "127.0.0.1:9", *SHORT)
    assert "is an input of this command" in refusal(*test, "--payload-file", kept, "-o", link)
    tls = ("run", "tls://127.0.0.1:9", *SHORT)
    for options in (("--tls-ca",), ("--tls-cert",), ("--tls-cert", "--tls-key")):
        named = [part for option in options for part in (option, kept)]
        assert "is an input of this command" in refusal(*tls, *named, "--html", kept)
    settings = tmp_path / "settings.toml"
    settings.write_text('timeout = "1s"\n')
    link_to_settings = tmp_path / "settings.json"
    link_to_settings.symlink_to(settings)
    assert "is an input of this command" in refusal(
        *test, "--config", settings, "-o", link_to_settings
    )
    assert kept.read_bytes() == before


@pytest.mark.parametrize("option", ["-o", *REPORTS])
def test_a_dash_is_refused_as_a_file(option: str) -> None:
    assert "- is not a file; use --json to print the result" in refusal(
        "run", "127.0.0.1:9", *SHORT, option, "-"
    )


@pytest.mark.parametrize("option", ["-o", *REPORTS, "--payload-file", "--tls-ca", "--config"])
def test_an_empty_name_is_no_file(option: str) -> None:
    name = "--output" if option == "-o" else option
    assert refusal("run", "127.0.0.1:9", *SHORT, option, "") == (
        f"echo-load run: error: {name}: the name of the file is empty; give a path, or omit it"
    )


@pytest.mark.slow
def test_reports_of_a_test_equal_those_of_its_saved_result(
    start_server: StartServer, tmp_path: Path
) -> None:
    paths = {option: tmp_path / f"test{option}" for option in ("-o", *REPORTS)}
    named = [part for option, path in paths.items() for part in (option, str(path))]
    ended = run([*LOAD, "run", start_server().url, *SHORT, *named])
    assert ended.returncode == 0, ended.stderr.decode()
    later = {option: tmp_path / f"later{option}" for option in REPORTS if option != "--html"}
    named = [part for option, path in later.items() for part in (option, str(path))]
    ended = run([*LOAD, "report", str(paths["-o"]), *named])
    assert (ended.returncode, ended.stdout) == (0, b"")
    for option, path in later.items():
        assert path.read_bytes() == paths[option].read_bytes()


@pytest.mark.slow
def test_several_results_are_printed_with_their_names(kept: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_bytes(kept.read_bytes())
    text = run([*LOAD, "report", str(kept), str(other)]).stdout.decode()
    assert text.index("kept\n") < text.index("PASSED") < text.index("\nother\n")


@pytest.mark.slow
def test_a_reader_of_a_report_may_close_the_pipe(kept: Path) -> None:
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
