from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

from echo_core.logs import DrainedStream
from support.processes import DEADLINE, run, until


def read_all(descriptor: int, into: bytearray) -> None:
    while piece := os.read(descriptor, 65536):
        into += piece


def test_a_stalled_reader_never_blocks_the_writer_and_losses_are_counted() -> None:
    reading, writing = os.pipe()
    reported: list[int] = []
    stream = DrainedStream(writing, on_dropped=reported.append, capacity=10)
    line = "x" * 9999 + "\n"
    for _ in range(1000):
        stream.write(line)
    assert stream.dropped > 900

    received = bytearray()
    reader = threading.Thread(target=read_all, args=(reading, received))
    reader.start()
    until(lambda: reported, "the losses reported")
    assert stream.close(DEADLINE)
    os.close(writing)
    reader.join(DEADLINE)
    os.close(reading)
    assert len(received) == len(line) * (1000 - stream.dropped)
    assert sum(reported) == stream.dropped


def test_a_stalled_reader_does_not_delay_exit() -> None:
    reading, writing = os.pipe()
    stream = DrainedStream(writing)
    stream.write("x" * 1_000_000)
    assert not stream.close(timeout=0.01)
    os.close(reading)
    until(lambda: stream.dropped, "the write to fail")
    os.close(writing)


def test_a_descriptor_made_non_blocking_by_another_process_loses_nothing() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    stream = DrainedStream(writing)
    stream.write("x" * 1_000_000)
    received = bytearray()
    reader = threading.Thread(target=read_all, args=(reading, received))
    reader.start()
    assert stream.close(DEADLINE)
    os.close(writing)
    reader.join(DEADLINE)
    os.close(reading)
    assert len(received) == 1_000_000


PROGRAM = """
import structlog
from echo_core import logs
stream = logs.configure("info", "{format}")
log = structlog.get_logger()
log.debug("hidden")
log.info("hello", port=7)
try:
    secret = b"payload"
    raise ValueError("broken")
except ValueError:
    log.exception("failed")
assert stream.close(10)
"""


def logged(log_format: str, **settings: str) -> str:
    program = PROGRAM.replace("{format}", log_format)
    result = run([sys.executable, "-c", program], stdin=b"", **settings)
    assert result.returncode == 0, result.stderr
    return result.stderr.decode()


def test_json_lines_begin_with_the_event_and_contain_no_variables() -> None:
    hello, failed = [json.loads(line) for line in logged("auto").splitlines()]
    assert list(hello) == ["timestamp", "level", "event", "port"]
    assert (hello["level"], hello["event"], hello["port"]) == ("info", "hello", 7)
    assert "ValueError: broken" in failed["exception"]
    assert "payload" not in failed["exception"].replace('secret = b"payload"', "")


def test_console_lines_are_coloured_only_when_wanted() -> None:
    assert "hello" in logged("console")
    assert "\x1b[" not in logged("console")
    assert "\x1b[" in logged("console", FORCE_COLOR="1")
    assert "\x1b[" not in logged("console", FORCE_COLOR="1", NO_COLOR="1")


def test_a_closed_standard_error_does_not_fail(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM.replace("{format}", "json"))
    reading, writing = os.pipe()
    os.close(reading)
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, str(script)],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, writing, 2)],
    )
    os.close(writing)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
