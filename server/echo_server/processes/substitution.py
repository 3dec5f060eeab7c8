"""Substitution: workers of other slots serve the listeners of a slot without a worker.

The kernel goes on spreading connections over all listeners of a port (SO_REUSEPORT, socket(7)):
those of a slot that nobody serves would wait until it has a worker again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import structlog

from echo_server.listeners import Listeners
from echo_server.processes.control import MOST_DESCRIPTORS, Adopt, Release
from echo_server.processes.slots import Slot, WorkerProcess

log = structlog.get_logger()

# After a refusal another worker is asked, or the same one again, only later.
RETRY_SECONDS = 0.5


class Substitution:
    """Assigns a substitute to each slot that is down, until the slot's own worker serves again.

    Args:
        slots: all slots.
        listeners: what they listen on.
    """

    def __init__(self, slots: Sequence[Slot], listeners: Listeners) -> None:
        self._slots = slots
        self._listeners = listeners

    def arrange(self) -> None:
        """Send commands so that each slot is served by its own worker or by one substitute."""
        now = time.monotonic()
        for slot in self._slots:
            if slot.is_up:
                self._relieve(slot)
            elif not slot.is_served and (slot.substitute_at or now) <= now:
                self._find(slot)

    def refused(self, worker: WorkerProcess, slot: Slot) -> None:
        """Note that a worker cannot serve a slot's listeners."""
        worker.refused_at = time.monotonic()
        worker.control.send(Release(slot.number))
        if slot.substitute is worker:
            slot.substitute = None
            slot.substitute_at = worker.refused_at + RETRY_SECONDS

    def _relieve(self, slot: Slot) -> None:
        if slot.substitute is not None and slot.substitute.serves:
            slot.substitute.control.send(Release(slot.number))
        slot.substitute = slot.substitute_at = None

    def _find(self, slot: Slot) -> None:
        slot.substitute = slot.substitute_at = None
        candidates = [one.current for one in self._slots if one.current and one.current.serves]
        if not candidates:
            return
        worker = min(candidates, key=lambda one: (one.refused_at, self._burden(one)))
        slot.substitute = worker
        if self._hand_over(slot, worker):
            log.info("another worker serves", worker=slot.number, substitute=worker.slot.number)
        else:
            self.refused(worker, slot)

    def _burden(self, worker: WorkerProcess) -> int:
        """Return the number of slots that a worker is the substitute of."""
        return sum(slot.substitute is worker for slot in self._slots)

    def _hand_over(self, slot: Slot, worker: WorkerProcess) -> bool:
        listeners = self._listeners.of_slot_alone(slot.number)
        for start in range(0, len(listeners), MOST_DESCRIPTORS):
            some = listeners[start : start + MOST_DESCRIPTORS]
            order = Adopt(slot.number, [scheme for scheme, _ in some])
            if not worker.control.send(order, [listener.fileno() for _, listener in some]):
                return False
        return True
