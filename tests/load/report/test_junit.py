"""JUnit XML of real tests, checked against what the schemas of Ant and Jenkins require."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest

from echo_load.report.junit import junit
from echo_load.results.reconciliation import Reconciliation
from echo_load.results.result import Result, Verdict, load_result
from support.misbehaving import Service, wrong
from support.processes import (
    DEADLINE,
    LOAD,
    EchoServerProcess,
    StartServer,
    environment,
    loaded,
    run,
    until,
)

SHORT = ("-c", "2", "-n", "20")
SUITE = {"id", "package", "name", "timestamp", "hostname", "tests", "failures", "errors", "time"}
WHOLE, REPLIES = "the test as a whole", "every reply is identical to what was sent"
COUNTS = "the counts of the generators equal those of the server"


def suites(content: bytes) -> list[dict[str, tuple[str, str]]]:
    """Check the XML; return outcome and text of each test case of each suite by its name."""
    root = ET.fromstring(content)
    assert (root.tag, root.attrib) == ("testsuites", {})
    found, known = [], set()
    for number, suite in enumerate(root):
        assert suite.tag == "testsuite"
        assert suite.attrib.keys() == SUITE | {"skipped"}
        assert suite.get("id") == str(number)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.attrib["timestamp"])
        properties, *cases, system_out, system_err = suite
        assert [properties.tag, system_out.tag, system_err.tag] == [
            "properties",
            "system-out",
            "system-err",
        ]
        for one in properties:
            assert (one.tag, set(one.attrib)) == ("property", {"name", "value"})
        outcomes = {}
        for case in cases:
            assert (case.tag, set(case.attrib)) == ("testcase", {"classname", "name", "time"})
            assert re.fullmatch(r"\d+\.\d{3}", case.attrib["time"])
            # GitLab ignores a second test of the same name.
            key = (case.attrib["classname"], case.attrib["name"])
            assert key not in known
            known.add(key)
            outcome, text = "passed", ""
            for reason in case:
                assert reason.tag in {"failure", "error", "skipped"}
                assert reason.attrib.keys() == {"message", "type"}
                outcome, text = reason.tag, reason.text or ""
                assert text.startswith(reason.attrib["message"])
                assert reason.attrib["message"]
            outcomes[case.attrib["name"]] = (outcome, text)
        counted = [outcome for outcome, _ in outcomes.values()]
        assert suite.get("tests") == str(len(counted))
        for outcome, name in (("failure", "failures"), ("error", "errors"), ("skipped",) * 2):
            assert suite.get(name) == str(counted.count(outcome))
        found.append(outcomes)
    return found


def written(path: Path) -> dict[str, tuple[str, str]]:
    (only,) = suites(path.read_bytes())
    return only


def of(result: Result) -> dict[str, tuple[str, str]]:
    (only,) = suites(junit([result], ["a"]))
    return only


def failing(cases: dict[str, tuple[str, str]]) -> set[str]:
    return {name for name, (outcome, _) in cases.items() if outcome in {"failure", "error"}}


@pytest.fixture(scope="module")
def result() -> Result:
    return loaded("run", *SHORT, "--threshold", "max<1h")[1]


def test_each_check_of_a_test_is_a_test_case(tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    ended = run([*LOAD, "run", *SHORT, "--threshold", "max<1h", "--junit", str(path)])
    assert ended.returncode == 0, ended.stderr.decode()
    cases = written(path)
    assert list(cases) == [WHOLE, "stage 1 of 1: 2 connections", REPLIES, "max<1h", COUNTS]
    assert {outcome for outcome, _ in cases.values()} == {"passed"}
    root = ET.fromstring(path.read_bytes())
    shown = root.findtext("testsuite/system-out") or ""
    # What is printed at the end, without the name of the test.
    assert (
        shown.splitlines()[1:] == ended.stdout.decode().splitlines()[-len(shown.splitlines()) :][1:]
    )
    # The port of a server that the test starts is another one each time.
    assert root[0].get("name") == "echo-load run: 2 connections; 20 messages"


@pytest.mark.slow
def test_wrong_replies_are_failures_with_their_bytes(tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    with Service(wrong) as service:
        ended = run([*LOAD, "run", service.target, *SHORT, "--junit", str(path), "--json"])
    assert ended.returncode == 1
    cases = written(path)
    assert failing(cases) == {REPLIES, "stage 1 of 1: 2 connections"}
    assert re.match(r"\d+ replies were not what was sent \(corrupt \d+\)\n", cases[REPLIES][1])
    assert "  received    " in cases[REPLIES][1]
    assert "first corrupt: connection " in cases["stage 1 of 1: 2 connections"][1]


def test_the_first_failure_is_not_said_to_be_of_a_later_stage(tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    stages = ("--stages", "1/200ms,2/200ms")
    with Service(wrong) as service:
        ended = run([*LOAD, "run", service.target, *stages, "--junit", str(path), "-q"])
    assert ended.returncode == 1
    cases = written(path)
    for name in ("stage 1 of 2: 1 connection", "stage 2 of 2: 2 connections"):
        assert "first corrupt of all stages: connection 1, message 0, at 0.0" in cases[name][1]


def test_what_connections_were_opened_with_is_a_property(tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    opened_with = ("--send-proxy", "v2", "--dscp", "EF", "--buffer-size", "64KiB")
    ended = run([*LOAD, "run", *SHORT, *opened_with, "--junit", str(path), "-q"])
    assert ended.returncode == 0, ended.stderr.decode()
    root = ET.fromstring(path.read_bytes())
    found = {one.get("name"): one.get("value") for one in root.iter("property")}
    assert found["PROXY header"] == "v2"
    assert found["DSCP"] == "46 (EF)"
    assert found["socket buffers"] == "64.0 KiB"


@pytest.mark.slow
def test_a_crossed_threshold_is_the_only_failure(
    echo_server: EchoServerProcess, tmp_path: Path
) -> None:
    path = tmp_path / "junit.xml"
    limits = ("--threshold", "max<1us", "--threshold", "max<1h", "--threshold", "max<1us")
    ended = run([*LOAD, "run", echo_server.url, *SHORT, *limits, "--junit", str(path)])
    assert ended.returncode == 99
    cases = written(path)
    assert failing(cases) == {"max<1us"}
    assert cases["max<1us"][1].startswith("max<1us was crossed: ")
    assert cases["max<1h"] == ("passed", "")


@pytest.mark.slow
def test_stages_that_were_not_reached_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    stages = ("-c", "2", "-c", "3", "-d", "60s", "--abort-on", "max<1us")
    ended = run([*LOAD, "stress", *stages, "--junit", str(path)])
    assert ended.returncode == 99
    cases = written(path)
    assert failing(cases) == {"--abort-on max<1us"}
    assert cases["--abort-on max<1us"][1].endswith("; the test was stopped")
    assert cases["stage 1 of 2: 2 connections"][0] == "passed"
    assert cases["stage 2 of 2: 3 connections"][0] == "skipped"


@pytest.mark.slow
def test_an_interrupted_test_is_an_error(echo_server: EchoServerProcess, tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    client = subprocess.Popen(
        [*LOAD, "run", echo_server.url, "-c", "3", "-d", "60s", "--junit", str(path), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    until(lambda: echo_server.log().count("connection accepted") == 3, "all to be connected")
    client.send_signal(signal.SIGINT)
    client.communicate(timeout=DEADLINE)
    assert client.returncode == 130
    assert written(path)[WHOLE][0] == "error"
    assert "interrupted before the end" in written(path)[WHOLE][1].splitlines()
    assert written(path)["stage 1 of 1: 3 connections"][0] == "skipped"


@pytest.mark.slow
def test_only_a_stage_that_was_complete_passes_in_an_interrupted_test(
    echo_server: EchoServerProcess, tmp_path: Path
) -> None:
    path = tmp_path / "junit.xml"
    stages = ("--stages", "2/500ms,3/60s,4/60s")
    client = subprocess.Popen(
        [*LOAD, "run", echo_server.url, *stages, "--junit", str(path), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    until(lambda: echo_server.log().count("connection accepted") == 3, "the second stage")
    client.send_signal(signal.SIGINT)
    client.communicate(timeout=DEADLINE)
    cases = written(path)
    assert cases["stage 1 of 3: 2 connections"][0] == "passed"
    assert re.fullmatch(r"interrupted after [\d.]+m?s", cases["stage 2 of 3: 3 connections"][1])
    assert cases["stage 2 of 3: 3 connections"][0] == "skipped"
    assert cases["stage 3 of 3: 4 connections"] == ("skipped", "the stage was not reached")


def stale(tmp_path: Path) -> dict[str, Path]:
    """Return the reports of an earlier test that passed."""
    files = {"--junit": tmp_path / "junit.xml", "--markdown": tmp_path / "summary.md"}
    for file in files.values():
        file.write_text("all passed")
    return files


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "127.0.0.1:9", "--arrivals", "poisson"), "--arrivals poisson has no effect"),
        (("run", "127.0.0.1:9", "--rate"), "--rate needs a number"),
        (("run", "127.0.0.1:9", "--html", "/nowhere/a.html"), "cannot write /nowhere/a.html"),
        (("capacity", "127.0.0.1:9", "--start", "9", "--highest", "5"), "above --highest 5"),
        (("idle", "127.0.0.1:9", "--up-to", "1s", "--at-least", "2s"), "--at-least 2s is not"),
        (("watch", "127.0.0.1:9", "--interval", "1ms"), "--interval 1ms is too short"),
        (("report", "/nowhere/a.json"), "cannot read /nowhere/a.json"),
    ],
)
def test_an_error_before_the_test_replaces_the_report_of_an_earlier_one(
    arguments: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    files = stale(tmp_path)
    named = [str(part) for pair in files.items() for part in pair]
    ended = run([*LOAD, *arguments, *named])
    assert ended.returncode == 2
    (line,) = ended.stderr.decode().splitlines()
    assert said in line
    ((outcome, text),) = written(files["--junit"]).values()
    assert outcome == "error"
    assert line.endswith(text)
    root = ET.fromstring(files["--junit"].read_bytes())
    assert (root[0].get("name") or "").startswith(f"echo-load {arguments[0]} ")
    assert "error" in files["--markdown"].read_text().splitlines()[0]


def test_an_error_of_the_command_line_leaves_all_files(tmp_path: Path) -> None:
    files = stale(tmp_path)
    named = [str(part) for pair in files.items() for part in pair]
    for wrong_option in (("--duration", "x"), ("--nonsense",)):
        assert run([*LOAD, "run", "127.0.0.1:9", *wrong_option, *named]).returncode == 2
    # And what the command reads is no report to replace.
    payload = str(files["--junit"])
    reads = ("--payload-file", payload, "--arrivals", "poisson")
    assert run([*LOAD, "run", "127.0.0.1:9", *reads, *named]).returncode == 2
    assert {file.read_text() for file in files.values()} == {"all passed"}


@pytest.mark.slow
def test_a_test_without_a_result_replaces_the_report_of_an_earlier_one(
    tmp_path: Path, unused_port: int
) -> None:
    xml, summary = tmp_path / "junit.xml", tmp_path / "summary.md"
    xml.write_text("all passed")
    summary.write_text("all passed")
    command = ["idle", f"127.0.0.1:{unused_port}", "--junit", str(xml), "--markdown", str(summary)]
    ended = run([*LOAD, *command])
    assert ended.returncode == 1
    said = ended.stderr.decode().removeprefix("echo-load: error: ").strip()
    assert written(xml) == {WHOLE: ("error", said)}
    first, *_, last = summary.read_text().splitlines()
    title = f"echo-load idle tcp://127.0.0.1:{unused_port}: idle connections, up to 600 s"
    assert first.endswith(f"{title}: error")
    root = ET.fromstring(xml.read_bytes())
    # As if it had ended with a result.
    assert root[0].get("name") == title
    assert last.replace("\\", "") == said
    # A file that cannot be written does not hide why the test failed.
    command[command.index(str(xml))] = "/dev/full"
    ended = run([*LOAD, *command])
    assert ended.returncode == 1
    assert ended.stderr.decode().splitlines() == [
        f"echo-load: error: {said}; cannot write /dev/full: No space left on device"
    ]


@pytest.mark.slow
def test_characters_that_xml_forbids_are_escaped(start_server: StartServer, tmp_path: Path) -> None:
    url = f"unix://{tmp_path}/\x01\x1b]<&\"'é\ufffe"
    server = start_server("--listen", url)
    path = tmp_path / "junit.xml"
    limit = ("--threshold", f"max{{{url}}}<1h")
    ended = run([*LOAD, "run", url, *SHORT, *limit, "--junit", str(path)])
    assert ended.returncode == 0, ended.stderr.decode()
    assert server.process.poll() is None
    seen = f"unix://{tmp_path}/\\x01\\x1b]<&\"'é\\ufffe"
    assert list(written(path))[3] == f"max{{{seen}}}<1h"
    assert seen in (ET.fromstring(path.read_bytes()).findtext("testsuite/system-out") or "")


@pytest.mark.slow
def test_several_results_are_several_suites(result: Result, tmp_path: Path) -> None:
    for name in ("before", "after"):
        (tmp_path / f"{name}.json").write_bytes(result.to_json())
    path = tmp_path / "junit.xml"
    results = [str(tmp_path / f"{name}.json") for name in ("before", "after")]
    ended = run([*LOAD, "report", *results, "--junit", str(path)])
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")
    assert len(suites(path.read_bytes())) == 2
    names = [suite.attrib["name"] for suite in ET.fromstring(path.read_bytes())]
    assert [name.partition(":")[0] for name in names] == ["before", "after"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "case"),
    [
        (("idle", "--up-to", "500ms", "--at-least", "400ms"), "kept>=400ms"),
        (("watch", "-d", "300ms", "--outage-budget", "0s"), "outages<=0s"),
        (("hold", "-c", "3", "--cycle", "100ms"), "stage 1 of 1: 30 msg/s on 3 connections"),
        (
            (
                *("capacity", "--slo", "p99<10s", "-d", "300ms", "--start", "100"),
                *("--highest", "200", "--at-least", "100", "--repeat", "1"),
            ),
            "capacity of at least 100 msg/s",
        ),
    ],
)
def test_every_command_that_tests_writes_it(
    echo_server: EchoServerProcess, tmp_path: Path, arguments: tuple[str, ...], case: str
) -> None:
    path, page = tmp_path / "junit.xml", tmp_path / "summary.md"
    command, *options = arguments
    files = ("--junit", str(path), "--markdown", str(page), "-o", str(tmp_path / "result.json"))
    ended = run([*LOAD, command, echo_server.url, *options, *files])
    saved = load_result(tmp_path / "result.json")
    assert ended.returncode == saved.exit_code, ended.stderr.decode()
    cases = written(path)
    assert case in cases
    assert bool(failing(cases)) == (not saved.passed), saved.reasons
    assert f"echo-load {command}: " in page.read_text().splitlines()[0]


@pytest.mark.parametrize("verdict", ["failed", "crossed", "interrupted"])
@pytest.mark.parametrize("reasons", [["a reason of a later version", "and another"], []])
def test_what_did_not_pass_has_a_failure(
    result: Result, verdict: Verdict, reasons: list[str]
) -> None:
    assert failing(of(result)) == set()
    changed = msgspec.structs.replace(result, verdict=verdict, passed=False, reasons=reasons)
    assert failing(of(changed)) == {WHOLE}
    assert of(changed)[WHOLE][1] == "\n".join(reasons or [f"the verdict is {verdict}"])


def test_without_replies_none_is_said_to_be_right(result: Result) -> None:
    nothing = msgspec.structs.replace(result.totals, messages=0)
    assert of(msgspec.structs.replace(result, totals=nothing))[REPLIES][0] == "skipped"


@pytest.mark.parametrize("counts", [True, False])
def test_counts_that_differ_fail_only_if_they_count(result: Result, counts: bool) -> None:
    differing = Reconciliation(
        admin="http://127.0.0.1:1",
        unit="bytes",
        sent=64,
        received_by_server=64,
        sent_by_server=64,
        received=0,
        balanced=False,
        differences=["64 bytes were lost"],
        server={},
    )
    changed = msgspec.structs.replace(
        result,
        reconciliation=differing,
        reasons=differing.differences if counts else [],
        verdict="failed" if counts else "passed",
        passed=not counts,
    )
    outcome, text = of(changed)[COUNTS]
    assert outcome == ("failure" if counts else "skipped")
    assert "64 bytes sent, 64 received by the server" in text
    assert failing(of(changed)) == ({COUNTS} if counts else set())
