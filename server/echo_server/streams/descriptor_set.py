"""Sets of descriptors that the hub watches, which report ready descriptors to an echo set."""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any, Protocol

from gevent import monkey

from echo_core.epoll_set import READABLE, EpollSet, Ready

# gevent's numbers for the events of a watcher.
_HUB_READ = 1
_HUB_WRITE = 2


class DescriptorSet(Protocol):
    """A set of watched descriptors, with a callback for ready descriptors and their events."""

    def watch(self, descriptor: int, events: int, /) -> object:
        """Add a descriptor, and watch it for an event.

        Raises:
            OSError: the descriptor cannot be watched.
        """

    def change(self, descriptor: int, events: int, /) -> object:
        """Watch a descriptor for other events; if they are 0, only for failures."""

    def forget(self, descriptor: int, /) -> object:
        """Remove a descriptor, before it is closed."""

    def close(self) -> None:
        """Stop watching for good."""


MakeDescriptorSet = Callable[[Any, Callable[[Ready], None]], DescriptorSet]


class WatcherSet:
    """A set with a hub watcher per descriptor, for systems without epoll.

    Args:
        loop: the event loop of a gevent hub, `hub.loop`.
        on_ready: called with a sequence of one pair, a descriptor and its event. It must not raise:
            an exception would stop the watcher for good.
    """

    def __init__(self, loop: Any, on_ready: Callable[[Ready], None]) -> None:
        self._loop = loop
        self._on_ready = on_ready
        self._watchers: dict[int, Any] = {}

    def watch(self, descriptor: int, events: int) -> None:
        """Add a descriptor, and watch it for an event."""
        watcher = self._loop.io(descriptor, _HUB_READ if events == READABLE else _HUB_WRITE)
        watcher.start(self._on_ready, ((descriptor, events),))
        self._watchers[descriptor] = watcher

    def change(self, descriptor: int, events: int) -> None:
        """Watch a descriptor for another event; if it is 0, for none."""
        self.forget(descriptor)
        if events:
            self.watch(descriptor, events)

    def forget(self, descriptor: int) -> None:
        """Remove a descriptor, before it is closed."""
        watcher = self._watchers.pop(descriptor, None)
        if watcher is not None:
            watcher.stop()
            watcher.close()

    def close(self) -> None:
        """Stop watching for good."""
        for descriptor in list(self._watchers):
            self.forget(descriptor)


def epoll_set(loop: Any, on_ready: Callable[[Ready], None]) -> EpollSet:
    """Return an epoll set (epoll(7)) for all descriptors; create it after any fork."""
    # Monkey-patching removes epoll from the select module.
    return EpollSet(loop, monkey.get_original("select", "epoll")(), on_ready)


# The fastest kind of set that the system supports.
make_descriptor_set: MakeDescriptorSet = epoll_set if hasattr(select, "EPOLLIN") else WatcherSet
