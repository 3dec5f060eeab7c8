"""Pages that greenlets fetch at once, in programs that are patched."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from echo_load.lab.experiment import (
    Conclusion,
    Experiment,
    Measurement,
    Measurements,
)
from echo_load.lab.notation import written

# The longest wait in seconds.
_DEADLINE = 20.0


_FETCH = """
import sys
if sys.argv[1] == "patched":
    from gevent import monkey
    monkey.patch_all()
import time, urllib.request
import gevent
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
def fetch(url):
    return len(opener.open(url, timeout=10).read())
began = time.perf_counter()
jobs = [gevent.spawn(fetch, url) for url in sys.argv[2:]]
gevent.joinall(jobs, raise_error=True)
print(time.perf_counter() - began)
"""


_PAGE_SECONDS = (0.1, 0.15, 0.2)


class _SlowPages(BaseHTTPRequestHandler):
    """A handler that answers after the milliseconds in the path."""

    def do_GET(self) -> None:  # the name that http.server asks for
        """Answer a request."""
        time.sleep(int(self.path[1:]) / 1000)
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"page")

    def log_message(self, *_arguments: object) -> None:
        """Log nothing."""


@contextmanager
def _pages() -> Iterator[list[str]]:
    """Serve three pages, and yield their URLs."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _SlowPages) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}"
        yield [f"{base}/{int(seconds * 1000)}" for seconds in _PAGE_SECONDS]
        server.shutdown()


def fetch_pages(quick: bool) -> Iterator[Measurement]:
    """Fetch three pages with a greenlet each, in programs that are patched and that are not."""
    with _pages() as urls:
        for kind in ("patched", "not patched"):
            took = [
                float(
                    subprocess.run(
                        [sys.executable, "-I", "-c", _FETCH, kind, *urls],
                        stdout=subprocess.PIPE,
                        check=True,
                        timeout=_DEADLINE,
                    ).stdout
                )
                for _ in range(1 if quick else 5)
            ]
            yield Measurement("three pages took", tuple(took), "s", kind)


def conclude_pages(measurements: Measurements) -> Conclusion:
    """Conclude that the claim holds if only the patched program took about the slowest page."""
    patched, other = (
        measurements.median("three pages took", kind) for kind in ("patched", "not patched")
    )
    slowest, total = max(_PAGE_SECONDS), sum(_PAGE_SECONDS)
    return Conclusion.when(
        patched < (slowest + total) / 2 <= other,
        f"three pages of 100, 150 and 200 ms took {written(patched, 's')} patched, where the "
        f"slowest alone takes {written(slowest, 's')}, and {written(other, 's')} unpatched, where "
        f"the sum is {written(total, 's')}.",
    )


MONKEY_PATCHING = Experiment(
    "monkey-patching",
    "After monkey.patch_all() urllib switches by itself: three pages are fetched at once.",
    "Programs fetch pages of 100, 150 and 200 ms from a server on this machine with a "
    "greenlet each.",
    fetch_pages,
    conclude_pages,
)
