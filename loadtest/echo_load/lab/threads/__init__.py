"""The chapter on threads."""

from __future__ import annotations

from echo_load.lab.experiment import Chapter
from echo_load.lab.threads.daemons import THREAD_DAEMON
from echo_load.lab.threads.joins import THREAD_JOIN, THREAD_JOIN_ORDER
from echo_load.lab.threads.starts import THREAD_NAMES, THREAD_START, THREAD_STYLES
from echo_load.lab.threads.timers import TIMER

CHAPTER = Chapter(
    name="threads",
    title="Threads",
    experiments=(
        THREAD_START,
        THREAD_NAMES,
        THREAD_JOIN,
        THREAD_JOIN_ORDER,
        THREAD_STYLES,
        THREAD_DAEMON,
        TIMER,
    ),
)
