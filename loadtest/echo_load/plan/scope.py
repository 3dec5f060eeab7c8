"""The part of a test that a threshold is limited to: a target, a stage, or both."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from echo_core.endpoint import parse_target
from echo_core.errors import InvalidValueError
from echo_core.units import format_count

# Not stage:2, which is a HOST:PORT. No host has a name with `=`.
_STAGE = re.compile(r"stage\s*=\s*([^,]*)", re.ASCII)
_NUMBER = re.compile(r"[1-9]\d{0,5}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Scope:
    """The part of a test that a threshold is limited to; `str` returns it in braces.

    Attributes:
        target: URL of the only target; None for all together.
        stage: number of the only stage, from 1; None for all together.
    """

    target: str | None = None
    stage: int | None = None

    @classmethod
    def parse(cls, text: str) -> Scope:
        """Parse `tcp://10.0.0.7:50007`, `stage=2` or `stage=2,tcp://10.0.0.7:50007`.

        The stage may also follow the target.

        Raises:
            InvalidValueError: the text is none of these.
        """
        first, comma, rest = text.partition(",")
        match = _STAGE.fullmatch(first.strip())
        if match is None:
            # The path of a unix socket may have commas.
            rest, comma, last = text.rpartition(",")
            match = _STAGE.fullmatch(last.strip()) if comma else None
        if match is None:
            return cls(target=str(parse_target(text)))
        number = match[1].strip()
        if not _NUMBER.fullmatch(number):
            raise InvalidValueError(
                f"{number!r} is not the number of a stage; write {{stage=1}} for the first one"
            )
        if _STAGE.fullmatch(rest.strip()):
            raise InvalidValueError("it names two stages; give a threshold for each")
        target = str(parse_target(rest.strip())) if comma else None
        return cls(target, int(number))

    def __str__(self) -> str:
        """Return the form in which a threshold has it; an empty string for the whole test."""
        named = [] if self.stage is None else [f"stage={self.stage}"]
        named += [] if self.target is None else [self.target]
        return f"{{{','.join(named)}}}" if named else ""

    @property
    def is_whole(self) -> bool:
        """True if it is the whole test."""
        return self == WHOLE_TEST

    def check(self, targets: Collection[str], stages: int) -> None:
        """Check that a test has this target and this stage.

        Args:
            targets: URLs of the targets.
            stages: number of stages.

        Raises:
            InvalidValueError: it has not, or the target is given more than once.
        """
        if self.stage is not None and self.stage > stages:
            raise InvalidValueError(
                f"there is no stage {self.stage}; the test has {format_count(stages, 'stage')}"
            )
        if self.target is None:
            return
        if self.target not in targets:
            tested = f"the targets are {', '.join(targets)}" if targets else "no target is given"
            hint = "; a stage is written as in {stage=2}" if self._is_like_stage else ""
            raise InvalidValueError(f"{self.target} is not tested; {tested}{hint}")
        if list(targets).count(self.target) > 1:
            raise InvalidValueError(f"{self.target} is given more than once")

    @property
    def _is_like_stage(self) -> bool:
        """True if the target may have been meant to be a stage: `stage:2`, `2`."""
        host, _, _ = (self.target or "").partition("://")[2].rpartition(":")
        return host.isdigit() or host.startswith("stage")


WHOLE_TEST = Scope()
