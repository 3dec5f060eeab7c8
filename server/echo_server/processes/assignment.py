"""The parameters that a supervisor passes to each worker process."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from echo_core.errors import InvalidValueError

_LISTENER = re.compile(r":(tcp|tls|udp|unix)(\d{1,9})", re.ASCII)
_ASSIGNMENT = re.compile(r"(\d+):(\d+):(\d+):(\d+)(?::(?:tcp|tls|udp|unix)\d{1,9})+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Assignment:
    """The slot of a worker, and the descriptors that it inherits.

    Attributes:
        slot: the number of the slot, from 0; a replacement has the slot of its predecessor.
        row: the number of the worker's row in the table of counters.
        counters: the descriptor of that table.
        control: the descriptor of the worker's end of the control socket.
        listeners: the scheme and the descriptor of each listener to serve.
    """

    slot: int
    row: int
    counters: int
    control: int
    listeners: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        """Return the form that `parse` reads: slot, row, counters, control, listeners."""
        listeners = [f"{scheme}{number}" for scheme, number in self.listeners]
        return ":".join(map(str, (self.slot, self.row, self.counters, self.control, *listeners)))

    @property
    def descriptors(self) -> tuple[int, ...]:
        """All descriptors that the worker must inherit."""
        return (self.counters, self.control, *(number for _, number in self.listeners))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the form that `str` returns.

        Raises:
            InvalidValueError: the text does not have this form.
        """
        match = _ASSIGNMENT.fullmatch(text)
        if match is None:
            raise InvalidValueError(f"{text!r} is not an assignment of the supervisor")
        slot, row, counters, control = map(int, match.groups())
        listeners = [(scheme, int(number)) for scheme, number in _LISTENER.findall(text)]
        return cls(slot, row, counters, control, tuple(listeners))
