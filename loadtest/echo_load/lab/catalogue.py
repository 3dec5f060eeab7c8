"""All experiments, by their chapters."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from importlib import import_module

from echo_core.errors import InvalidValueError
from echo_load.lab.experiment import Chapter, Experiment

# In the order of the tutorial; modules of this package.
_CHAPTERS = ("threads", "locks", "queues", "processes", "coroutines", "waiting", "comparison")


def chapters() -> tuple[Chapter, ...]:
    """Import and return all chapters."""
    return tuple(import_module(f"echo_load.lab.{name}").CHAPTER for name in _CHAPTERS)


def choose(names: Sequence[str]) -> list[tuple[Chapter, Experiment]]:
    """Return the experiments of some names, in the order of the chapters; all if there are none.

    Args:
        names: of experiments, or of chapters for all their experiments.

    Raises:
        InvalidValueError: there is no such experiment or chapter.
    """
    known = [(chapter, one) for chapter in chapters() for one in chapter.experiments]
    all_names = {name for chapter, one in known for name in (chapter.name, one.name)}
    for name in names:
        if name not in all_names:
            near = difflib.get_close_matches(name, all_names, n=1)
            hint = f"did you mean {near[0]}?" if near else "`echo-load lab list` lists them"
            raise InvalidValueError(f"{name!r} is not an experiment; {hint}")
    wanted = set(names) or all_names
    return [(chapter, one) for chapter, one in known if {chapter.name, one.name} & wanted]
