"""Substitution: workers of other slots serve the listeners of a slot without a worker.

The kernel distributes connections among all listeners of a port (SO_REUSEPORT, socket(7)), also to
those of a slot without a worker. These connections would wait until the slot has a worker again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import structlog

from echo_server.listeners import Listeners
from echo_server.processes.control import MAX_DESCRIPTORS, Adopt, Release
from echo_server.processes.slots import Slot, WorkerProcess

log = structlog.get_logger()

# The delay before a substitute is assigned again after a worker has refused.
RETRY_SECONDS = 0.5


class Substitution:
    """The assignment of a substitute to each slot that is down, until its own worker serves again.

    Args:
        slots: all slots.
        listeners: the listeners of all slots.
    """

    def __init__(self, slots: Sequence[Slot], listeners: Listeners) -> None:
        self._slots = slots
        self._listeners = listeners

    def update(self) -> None:
        """Send commands so that each slot is served by its own worker or by a substitute."""
        now = time.monotonic()
        for slot in self._slots:
            if slot.is_up:
                self._release_substitute(slot)
            elif not slot.is_served and (slot.substitute_at or now) <= now:
                self._assign_substitute(slot)

    def on_refused(self, worker: WorkerProcess, slot: Slot) -> None:
        """Handle a worker's refusal to serve the listeners of a slot."""
        worker.refused_at = time.monotonic()
        worker.control.send(Release(slot.number))
        if slot.substitute is worker:
            slot.substitute = None
            slot.substitute_at = worker.refused_at + RETRY_SECONDS

    def _release_substitute(self, slot: Slot) -> None:
        if slot.substitute is not None and slot.substitute.serves:
            slot.substitute.control.send(Release(slot.number))
        slot.substitute = slot.substitute_at = None

    def _assign_substitute(self, slot: Slot) -> None:
        slot.substitute = slot.substitute_at = None
        candidates = [one.current for one in self._slots if one.current and one.current.serves]
        if not candidates:
            return
        worker = min(candidates, key=lambda one: (one.refused_at, self._slots_substituted(one)))
        slot.substitute = worker
        if self._send_listeners(slot, worker):
            log.info("another worker serves", worker=slot.number, substitute=worker.slot.number)
        else:
            self.on_refused(worker, slot)

    def _slots_substituted(self, worker: WorkerProcess) -> int:
        """Return the number of slots whose substitute a worker is."""
        return sum(slot.substitute is worker for slot in self._slots)

    def _send_listeners(self, slot: Slot, worker: WorkerProcess) -> bool:
        listeners = self._listeners.exclusive_to_slot(slot.number)
        for start in range(0, len(listeners), MAX_DESCRIPTORS):
            batch = listeners[start : start + MAX_DESCRIPTORS]
            command = Adopt(slot.number, [scheme for scheme, _ in batch])
            if not worker.control.send(command, [listener.fileno() for _, listener in batch]):
                return False
        return True
