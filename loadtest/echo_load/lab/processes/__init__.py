"""The chapter on processes."""

from __future__ import annotations

from echo_load.lab.experiment import Chapter
from echo_load.lab.processes.exchange import PROCESS_EXCHANGE
from echo_load.lab.processes.managers import MANAGER
from echo_load.lab.processes.output import PROCESS_LOCK
from echo_load.lab.processes.pools import POOL, POOL_JOIN
from echo_load.lab.processes.starts import PROCESS_MEMORY, PROCESS_START

CHAPTER = Chapter(
    name="processes",
    title="Processes",
    experiments=(
        *(PROCESS_START, PROCESS_MEMORY, PROCESS_EXCHANGE, MANAGER),
        *(PROCESS_LOCK, POOL, POOL_JOIN),
    ),
)
