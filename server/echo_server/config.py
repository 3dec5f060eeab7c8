"""What the server is told to do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from echo_core.endpoint import Endpoint
from echo_core.errors import InvalidValueError

if TYPE_CHECKING:
    from echo_core.logs import Format, Level


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Settings of one server, validated.

    Attributes:
        endpoint: where to listen; port 0 is any free port.
        backlog: connections the kernel may hold until they are accepted. Linux cuts it to
            net.core.somaxconn without a word (listen(2)).
        drain_timeout: seconds that open connections get to finish after SIGTERM or SIGINT.
        log_level: the least severe level that is logged.
        log_format: as in `echo_core.logs.configure`.

    Raises:
        InvalidValueError: a limit is out of its range.
    """

    endpoint: Endpoint
    backlog: int = 4096
    drain_timeout: float = 10.0
    log_level: Level = "info"
    log_format: Format = "auto"

    def __post_init__(self) -> None:
        if not 1 <= self.backlog < 2**31:
            raise InvalidValueError(f"backlog {self.backlog} is not between 1 and {2**31 - 1}")
        if not 0 <= self.drain_timeout < math.inf:
            raise InvalidValueError(f"a drain timeout of {self.drain_timeout} seconds is no time")
