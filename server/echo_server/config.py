"""The server's configuration."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from echo_core.endpoint import DescriptorEndpoint, Endpoint, NetworkEndpoint
from echo_core.errors import InvalidValueError
from echo_server.faults import DATAGRAM_ONLY, STREAM_ONLY, Fault

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
        handshake_timeout: seconds that a connection gets for what comes before the echo: its PROXY
            header and its TLS handshake.
        proxy_protocol: each connection begins with a PROXY header.
        tls_cert: PEM file with the certificate and its chain, for `tls://` listeners.
        tls_key: PEM file with its key.
        tls_client_ca: PEM file with the authorities whose certificates clients must show.
        udp_low_ports: answer datagrams from ports below 1024.
        faults: what is injected on purpose; at most one strikes a read or a datagram.
        fault_seed: another one lets them strike elsewhere.
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
    handshake_timeout: float = 10.0
    proxy_protocol: bool = False
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_client_ca: str | None = None
    udp_low_ports: bool = False
    faults: tuple[Fault, ...] = ()
    fault_seed: int = 0
    admin: NetworkEndpoint | None = None
    access_log: float = 0.0
    log_level: Level = "info"
    log_format: Format = "auto"

    def __post_init__(self) -> None:
        if not self.listen:
            raise InvalidValueError("there is nothing to listen on; write --listen tcp://HOST:PORT")
        self._check_addresses()
        self._check_numbers()
        self._check_tls()
        if self.access_log and self.log_level in {"warning", "error"}:
            raise InvalidValueError(
                f"--access-log logs at level info, which --log-level {self.log_level} suppresses; "
                "write --log-level info"
            )

    def _check_addresses(self) -> None:
        inherited = [one for one in self.listen if isinstance(one, DescriptorEndpoint)]
        for descriptor in inherited:
            if inherited.count(descriptor) > 1:
                raise InvalidValueError(f"--listen {descriptor} is given twice; give it once")
        for endpoint in self.listen:
            version = endpoint.ip_version if isinstance(endpoint, NetworkEndpoint) else None
            if version and self.ip_version and version != self.ip_version:
                raise InvalidValueError(
                    f"-{self.ip_version}: {endpoint} is an IPv{version} address; omit "
                    f"-{self.ip_version}, or give an IPv{self.ip_version} address"
                )

    def _check_tls(self) -> None:
        if self.speaks_tls and not (self.tls_cert and self.tls_key):
            missing = "--tls-key" if self.tls_cert else "--tls-cert"
            raise InvalidValueError(f"a tls:// listener needs {missing} FILE")
        for name in ("tls_cert", "tls_key", "tls_client_ca"):
            if getattr(self, name) is not None and not self.speaks_tls:
                raise InvalidValueError(
                    f"--{name.replace('_', '-')} applies only to TLS; add --listen tls://HOST:PORT"
                )

    def check_faults(self) -> None:
        """Check that each fault applies to one of the listeners.

        Raises:
            InvalidValueError: it strikes datagrams only, or connections only, and there are none.
        """
        if any(isinstance(endpoint, DescriptorEndpoint) for endpoint in self.listen):
            # Their kind is known only when they are opened.
            return
        datagrams = {endpoint.scheme == "udp" for endpoint in self.listen}
        for fault in self.faults:
            if fault.kind in DATAGRAM_ONLY and datagrams == {False}:
                raise InvalidValueError(
                    f"--fault {fault} applies only to datagrams; add --listen udp://HOST:PORT"
                )
            if fault.kind in STREAM_ONLY and datagrams == {True}:
                raise InvalidValueError(
                    f"--fault {fault} applies only to connections; add --listen tcp://HOST:PORT"
                )

    def _check_numbers(self) -> None:
        for name in ("backlog", "workers", "max_connections", "max_connections_per_ip"):
            number = getattr(self, name)
            if number is not None and not 1 <= number < 2**31:
                raise InvalidValueError(f"{_words(name)} {number} is not between 1 and {2**31 - 1}")
        if not 0 <= self.unix_mode <= 0o777:
            raise InvalidValueError(f"unix mode {self.unix_mode:o} is not between 0 and 777")
        if not 0 <= self.drain_timeout < math.inf:
            raise InvalidValueError(
                f"a drain timeout of {self.drain_timeout} seconds is negative or not finite"
            )
        if self.idle_timeout is not None and not 0 < self.idle_timeout < math.inf:
            raise InvalidValueError(
                f"an idle timeout of {self.idle_timeout} seconds is not above 0 and finite"
            )
        if not 0 < self.handshake_timeout < math.inf:
            raise InvalidValueError(
                f"a handshake timeout of {self.handshake_timeout} seconds is not above 0 and finite"
            )
        if self.rate_limit is not None and self.rate_limit < 1:
            raise InvalidValueError(
                f"a rate limit of {self.rate_limit} bytes per second is below 1"
            )
        if not 0 <= self.access_log <= 1:
            raise InvalidValueError(f"access log: {self.access_log} is not a share between 0 and 1")

    @property
    def speaks_tls(self) -> bool:
        """True if a listener speaks TLS."""
        return any(endpoint.scheme == "tls" for endpoint in self.listen)

    @property
    def is_supervised(self) -> bool:
        """True if a supervisor starts the workers; it also serves the admin page.

        One worker without an admin page has none. In the worker's own process the page would hold
        up the echoing for as long as a scrape takes.
        """
        return self.workers > 1 or self.admin is not None

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
                f"--max-connections {self.max_connections} is too high: {workers} with "
                f"{descriptors} descriptors each (ulimit -Hn) can hold {most}; lower it, or raise "
                "the descriptor limit or --workers"
            )


def _words(name: str) -> str:
    return name.replace("_", " ")
