"""The chapter on locks, semaphores and events."""

from __future__ import annotations

from echo_load.lab.experiment import Chapter
from echo_load.lab.locks.events import EVENT
from echo_load.lab.locks.mutexes import LOCK, RLOCK
from echo_load.lab.locks.semaphores import SEMAPHORE

CHAPTER = Chapter(
    name="locks",
    title="Locks, semaphores and events",
    experiments=(LOCK, RLOCK, SEMAPHORE, EVENT),
)
