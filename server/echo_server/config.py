"""The server's configuration."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from echo_core.endpoint import DescriptorEndpoint, Endpoint, NetworkEndpoint
from echo_core.errors import InvalidValueError
from echo_core.limits import SPARE_DESCRIPTORS
from echo_server.faults import DATAGRAM_ONLY, STREAM_ONLY, Fault

if TYPE_CHECKING:
    from echo_core.logs import Format, Level

WhenFull = Literal["close", "wait"]
IpVersion = Literal[4, 6]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Settings of one server, validated.

    Attributes:
        listen: the endpoints to listen on; port 0 stands for any free port.
        ip_version: listen on addresses of this IP version only; None allows both.
        backlog: the maximum number of connections waiting to be accepted, per listener. Linux
            silently reduces it to net.core.somaxconn (listen(2)).
        unix_mode: the file mode of unix sockets.
        workers: the number of worker processes.
        drain_timeout: seconds that open connections have to finish after SIGTERM or SIGINT.
        max_connections: the maximum number of open connections, over all workers; None for no
            limit.
        when_full: what to do with connections beyond `max_connections`: `close` accepts and closes
            them, `wait` leaves them in the backlog.
        max_connections_per_ip: the maximum number of open connections per client address, in each
            worker; None for no limit.
        idle_timeout: seconds without any transfer of data after which a connection is closed; None
            to keep idle connections.
        rate_limit: the maximum number of bytes per second that each connection may send; None for
            no limit.
        handshake_timeout: seconds that a connection has for its PROXY header and TLS handshake
            together.
        proxy_protocol: expect each connection to begin with a PROXY header.
        tls_cert: PEM file with the certificate and its chain, for `tls://` listeners.
        tls_key: PEM file with the private key.
        tls_client_ca: PEM file with the authorities that must have signed client certificates;
            None to require no client certificate.
        udp_low_ports: answer datagrams from ports below 1024, too.
        faults: the faults to inject, at most one into each read or datagram.
        fault_seed: the seed that decides which reads and datagrams the faults are injected into.
        admin: the address of the admin page; None for no page.
        access_log: the share of connections, from 0 to 1, that are logged when they end.
        log_level: the minimum severity to log.
        log_format: the log format, as in `echo_core.logs.configure`.

    Raises:
        InvalidValueError: a setting is out of range, or contradicts another.
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
            InvalidValueError: a fault applies only to datagrams and there is no UDP listener, or
                only to connections and all listeners are UDP.
        """
        if any(isinstance(endpoint, DescriptorEndpoint) for endpoint in self.listen):
            # Whether a descriptor is a stream or a UDP socket is known only when it is opened.
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
        """True if a supervisor starts the workers and serves the admin page.

        A single worker without an admin page needs no supervisor. With one, the page is served by
        the supervisor, since in the worker each scrape would delay the echo.
        """
        return self.workers > 1 or self.admin is not None

    def check_fit(self, descriptors: int) -> None:
        """Check that all workers together can hold `max_connections` open connections.

        Args:
            descriptors: the number of descriptors that each worker may open.

        Raises:
            InvalidValueError: the workers may not open enough descriptors.
        """
        if self.max_connections is None:
            return
        limit = self.workers * max(0, descriptors - SPARE_DESCRIPTORS)
        if self.max_connections > limit:
            workers = "1 worker" if self.workers == 1 else f"{self.workers} workers"
            raise InvalidValueError(
                f"--max-connections {self.max_connections} is too high: {workers} with "
                f"{descriptors} descriptors each (ulimit -Hn) can hold {limit}; lower it, or raise "
                "the descriptor limit or --workers"
            )


def _words(name: str) -> str:
    return name.replace("_", " ")
