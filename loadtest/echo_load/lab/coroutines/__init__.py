"""The chapter on coroutines."""

from __future__ import annotations

from echo_load.lab.coroutines.atomicity import NO_LOCK
from echo_load.lab.coroutines.numbers import GREENLETS
from echo_load.lab.coroutines.state import COROUTINE_STATE, SWITCH_ORDER
from echo_load.lab.coroutines.switches import SWITCH_COST
from echo_load.lab.experiment import Chapter

CHAPTER = Chapter(
    name="coroutines",
    title="Coroutines",
    experiments=(COROUTINE_STATE, SWITCH_ORDER, SWITCH_COST, GREENLETS, NO_LOCK),
)
