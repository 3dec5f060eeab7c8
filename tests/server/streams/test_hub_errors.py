from __future__ import annotations

import json
import sys

from support.processes import run

PROGRAM = """
from gevent import monkey
monkey.patch_all()
import gevent
from echo_core import logs
from echo_server.processes.worker import _log_hub_errors
stream = logs.configure("info", "json", monkey.get_original("_thread", "start_new_thread"))
_log_hub_errors()
def fail():
    raise RuntimeError("on purpose")
gevent.get_hub().loop.run_callback(fail)
gevent.spawn(fail).join()
gevent.sleep(0)
assert stream.close(10)
"""


def test_errors_that_reach_the_hub_are_logged() -> None:
    """Printed as gevent prints them, they would wait for the reader of standard error."""
    result = run([sys.executable, "-c", PROGRAM])
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["unhandled error", "unhandled error"]
    assert all("RuntimeError: on purpose" in line["exception"] for line in lines)
