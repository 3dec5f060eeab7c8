"""One epoll set for many descriptors, watched by one watcher of an event loop.

The server's echo set and the load tester's hub engine are built on it: the event loop makes one
callback per batch of ready descriptors, instead of having a watcher and a callback for each
descriptor. An epoll descriptor can itself be polled (epoll(7)). The loop is gevent's; this module
does not import it.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Sequence
from typing import Any

# epoll (EPOLLIN, EPOLLOUT) and poll(2) use the same values on all systems.
READABLE = 0x001
WRITABLE = 0x004
# Descriptors that are served per wake-up before the loop runs everything else.
BATCH = 256
# gevent's number for a watcher's read event.
_LOOP_READ = 1

Ready = Sequence[tuple[int, int]]


class OtherDirectionError(BlockingIOError):
    """The operation has to wait until the socket is ready for the opposite direction.

    TLS writes in order to read, and reads in order to write: a receive can find that an answer to
    the peer (a key update, RFC 8446, section 4.6.3) has to be sent first.
    """


class EpollSet:
    """A set of descriptors whose events reach an event loop in batches.

    Args:
        loop: the event loop of a gevent hub, `hub.loop`.
        epoll: an epoll object created after any fork. Monkey-patching removes the class from the
            select module; `gevent.monkey.get_original("select", "epoll")()` creates one.
        on_ready: called with a batch of (descriptor, events) pairs. It must not raise: an
            exception would stop the watcher for good.
    """

    def __init__(self, loop: Any, epoll: select.epoll, on_ready: Callable[[Ready], None]) -> None:
        self._epoll = epoll
        self._on_ready = on_ready
        # epoll_ctl(2): add a descriptor, and change the events of one.
        self.watch = epoll.register
        self.change = epoll.modify
        self.forget = epoll.unregister
        self._watcher = loop.io(epoll.fileno(), _LOOP_READ)
        self._watcher.start(self._wake)

    def close(self) -> None:
        """Stop watching and close the epoll descriptor."""
        self._watcher.stop()
        self._watcher.close()
        self._epoll.close()

    def _wake(self) -> None:
        self._on_ready(self._epoll.poll(0, BATCH))
