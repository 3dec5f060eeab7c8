"""Sets of descriptors watched by the hub, which report readiness to an echo set."""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any, Protocol

from gevent import monkey

from echo_core.epoll_set import READABLE, EpollSet, Ready

# gevent's own numbers for the events of a watcher.
_HUB_READ = 1
_HUB_WRITE = 2


class DescriptorSet(Protocol):
    """A set of descriptors with a callback for those that are ready and their events."""

    def watch(self, descriptor: int, events: int, /) -> object:
        """Begin to watch a descriptor for events.

        Raises:
            OSError: it cannot be watched.
        """

    def change(self, descriptor: int, events: int, /) -> object:
        """Watch a descriptor for other events, or only for its failure."""

    def forget(self, descriptor: int, /) -> object:
        """Stop watching a descriptor, which is about to be closed."""

    def close(self) -> None:
        """Stop watching for good."""


MakeDescriptorSet = Callable[[Any, Callable[[Ready], None]], DescriptorSet]


class WatcherSet:
    """A persistent watcher of the hub for each descriptor, where there is no epoll.

    Args:
        loop: gevent's, of a hub: `hub.loop`.
        on_ready: called with a descriptor and its event. An exception that left it would stop the
            watcher for ever: it must not raise.
    """

    def __init__(self, loop: Any, on_ready: Callable[[Ready], None]) -> None:
        self._loop = loop
        self._on_ready = on_ready
        self._watchers: dict[int, Any] = {}

    def watch(self, descriptor: int, events: int) -> None:
        """Begin to watch a descriptor for an event."""
        watcher = self._loop.io(descriptor, _HUB_READ if events == READABLE else _HUB_WRITE)
        watcher.start(self._on_ready, ((descriptor, events),))
        self._watchers[descriptor] = watcher

    def change(self, descriptor: int, events: int) -> None:
        """Watch a descriptor for another event, or for nothing."""
        self.forget(descriptor)
        if events:
            self.watch(descriptor, events)

    def forget(self, descriptor: int) -> None:
        """Stop watching a descriptor, which is about to be closed."""
        watcher = self._watchers.pop(descriptor, None)
        if watcher is not None:
            watcher.stop()
            watcher.close()

    def close(self) -> None:
        """Stop watching for good."""
        for descriptor in list(self._watchers):
            self.forget(descriptor)


def epoll_set(loop: Any, on_ready: Callable[[Ready], None]) -> EpollSet:
    """One epoll set (epoll(7)) for all descriptors; to be created after any fork."""
    # Monkey-patching takes epoll out of the select module.
    return EpollSet(loop, monkey.get_original("select", "epoll")(), on_ready)


# The fastest that this system has.
make_descriptor_set: MakeDescriptorSet = epoll_set if hasattr(select, "EPOLLIN") else WatcherSet
