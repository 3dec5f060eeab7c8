"""One epoll set for many descriptors, and one watcher of an event loop on it.

What the server's echo set and the load tester's hub engine have in common: the loop is told once a
batch what would otherwise cost it a watcher and a callback a descriptor (epoll(7): an epoll
descriptor can be watched like any other). The loop is gevent's; this module does not import it.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Sequence
from typing import Any

# The same values for epoll (EPOLLIN, EPOLLOUT) and poll(2) everywhere.
READABLE = 0x001
WRITABLE = 0x004
# Descriptors a wake-up serves before the loop gets to run everything else.
BATCH = 256
# gevent's own number for the event of a watcher.
_LOOP_READ = 1

Ready = Sequence[tuple[int, int]]


class EpollSet:
    """Watches descriptors for a loop, a batch a wake-up.

    Args:
        loop: gevent's, of a hub: `hub.loop`.
        epoll: made after any fork. Monkey-patching takes the name out of the select module:
            `gevent.monkey.get_original("select", "epoll")()`.
        on_ready: called with a batch of descriptors and their events. An exception that left it
            would stop the watcher for ever: it must not raise.
    """

    def __init__(self, loop: Any, epoll: select.epoll, on_ready: Callable[[Ready], None]) -> None:
        self._epoll = epoll
        self._on_ready = on_ready
        # To watch descriptors for the first time, and for other events: epoll_ctl(2).
        self.watch = epoll.register
        self.change = epoll.modify
        self.forget = epoll.unregister
        self._watcher = loop.io(epoll.fileno(), _LOOP_READ)
        self._watcher.start(self._wake)

    def close(self) -> None:
        """Stop watching for good."""
        self._watcher.stop()
        self._watcher.close()
        self._epoll.close()

    def _wake(self) -> None:
        self._on_ready(self._epoll.poll(0, BATCH))
