"""Completion of the prompt's commands, and of the file names that they take."""

from __future__ import annotations

from collections.abc import Iterable

from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document


class CommandCompleter(Completer):
    """Completes the names of commands, and file names after some of them.

    Args:
        names: the names of the commands, without the backslash.
        with_arguments: those of them that take arguments.
        with_files: those of them that take a file name.
    """

    def __init__(
        self, names: Iterable[str], *, with_arguments: Iterable[str], with_files: Iterable[str]
    ) -> None:
        self._names = tuple(names)
        self._with_arguments = frozenset(with_arguments)
        self._with_files = frozenset(with_files)
        self._paths = PathCompleter(expanduser=True)

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        """Yield the completions of the text before the cursor."""
        before = document.text_before_cursor
        if not before.startswith("\\"):
            return
        name, space, argument = before[1:].partition(" ")
        if space:
            if name in self._with_files:
                path = argument.lstrip().removeprefix('"').removeprefix("'")
                yield from self._paths.get_completions(Document(path), complete_event)
            return
        for one in self._names:
            if one.startswith(name):
                suffix = " " if one in self._with_arguments else ""
                yield Completion(f"\\{one}{suffix}", -len(before), display=f"\\{one}")
