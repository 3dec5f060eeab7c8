"""What the server is told to do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from echo_core.endpoint import Endpoint, NetworkEndpoint
from echo_core.errors import InvalidValueError

if TYPE_CHECKING:
    from echo_core.logs import Format, Level

WhenFull = Literal["close", "wait"]
IpVersion = Literal[4, 6]

# Descriptors of a process that are no connections: listeners, logs, counters, epoll sets.
SPARE_DESCRIPTORS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Settings of one server, validated.

    Attributes:
        listen: where to listen; port 0 is any free port.
        ip_version: listen on addresses of this version only; None is both.
        backlog: connections the kernel may hold until they are accepted. Linux cuts it to
            net.core.somaxconn without a word (listen(2)).
        unix_mode: the permissions of unix sockets.
        workers: processes that serve.
        drain_timeout: seconds that open connections get to finish after SIGTERM or SIGINT.
        max_connections: connections that may be open at once in all workers together.
        when_full: what becomes of a connection beyond `max_connections`: it is accepted and closed
            at once, or it waits in the backlog.
        max_connections_per_ip: connections that may be open at once from one address, in each
            worker.
        idle_timeout: seconds after which a connection is closed on which nothing has moved.
        rate_limit: bytes a second that a connection may send.
        admin: where metrics and health are served.
        access_log: share of the closed connections, 0 to 1, that are logged with what they did.
        log_level: the least severe level that is logged.
        log_format: as in `echo_core.logs.configure`.

    Raises:
        InvalidValueError: a limit is out of its range, or two settings contradict each other.
    """

    listen: tuple[Endpoint, ...]
    ip_version: IpVersion | None = None
    backlog: int = 4096
    unix_mode: int = 0o666
    workers: int = 1
    drain_timeout: float = 10.0
    max_connections: int | None = None
    when_full: WhenFull = "close"
    max_connections_per_ip: int | None = None
    idle_timeout: float | None = None
    rate_limit: int | None = None
    admin: NetworkEndpoint | None = None
    access_log: float = 0.0
    log_level: Level = "info"
    log_format: Format = "auto"

    def __post_init__(self) -> None:
        if not self.listen:
            raise InvalidValueError("there is nothing to listen on; write --listen tcp://HOST:PORT")
        self._check_addresses()
        self._check_numbers()
        if self.access_log and self.log_level in {"warning", "error"}:
            raise InvalidValueError(
                f"--access-log writes lines of level info, which --log-level {self.log_level} "
                "leaves out; write --log-level info"
            )

    def _check_addresses(self) -> None:
        for endpoint in self.listen:
            version = endpoint.ip_version if isinstance(endpoint, NetworkEndpoint) else None
            if version and self.ip_version and version != self.ip_version:
                raise InvalidValueError(
                    f"-{self.ip_version}: {endpoint} is an IPv{version} address; "
                    f"leave out -{self.ip_version}, or name an IPv{self.ip_version} address"
                )

    def _check_numbers(self) -> None:
        for name in ("backlog", "workers", "max_connections", "max_connections_per_ip"):
            number = getattr(self, name)
            if number is not None and not 1 <= number < 2**31:
                raise InvalidValueError(f"{_words(name)} {number} is not between 1 and {2**31 - 1}")
        if not 0 <= self.unix_mode <= 0o777:
            raise InvalidValueError(f"a unix socket cannot have the mode {self.unix_mode:o}")
        if not 0 <= self.drain_timeout < math.inf:
            raise InvalidValueError(f"a drain timeout of {self.drain_timeout} seconds is no time")
        if self.idle_timeout is not None and not 0 < self.idle_timeout < math.inf:
            raise InvalidValueError(f"an idle timeout of {self.idle_timeout} seconds is no time")
        if self.rate_limit is not None and self.rate_limit < 1:
            raise InvalidValueError(f"a rate limit of {self.rate_limit} lets nothing through")
        if not 0 <= self.access_log <= 1:
            raise InvalidValueError(f"{self.access_log} is no share of the connections")

    def check_fit(self, descriptors: int) -> None:
        """Check that each worker can hold its share of `max_connections`.

        Raises:
            InvalidValueError: there are too few descriptors for it.
        """
        if self.max_connections is None:
            return
        most = self.workers * max(0, descriptors - SPARE_DESCRIPTORS)
        if self.max_connections > most:
            workers = "1 worker" if self.workers == 1 else f"{self.workers} workers"
            raise InvalidValueError(
                f"--max-connections {self.max_connections} does not fit: {workers} with "
                f"{descriptors} descriptors each (ulimit -Hn) can hold {most}; write at most that, "
                "or raise the limit or --workers"
            )


def _words(name: str) -> str:
    return name.replace("_", " ")
