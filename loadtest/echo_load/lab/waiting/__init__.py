"""The chapter on coroutines that wait for the network, that block, and that compute."""

from __future__ import annotations

from echo_load.lab.experiment import Chapter
from echo_load.lab.waiting.blocking import BLOCKING
from echo_load.lab.waiting.cores import CORES
from echo_load.lab.waiting.fetching import MONKEY_PATCHING

CHAPTER = Chapter(
    name="waiting",
    title="Coroutines that wait, block and compute",
    experiments=(MONKEY_PATCHING, BLOCKING, CORES),
)
