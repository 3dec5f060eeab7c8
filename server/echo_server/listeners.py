"""Creation of the sockets that the server listens on.

Plain `socket` code, for the supervisor, which is never monkey-patched, and for a worker, which is.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import structlog

from echo_core.endpoint import (
    ANY_HOST,
    DescriptorEndpoint,
    Endpoint,
    NetworkEndpoint,
    Transport,
    UnixEndpoint,
)
from echo_core.socket_address import host_of, unix_path
from echo_core.standard_streams import announce
from echo_server.config import IpVersion, ServerConfig
from echo_server.directory_lock import locked
from echo_server.errors import ListenError

log = structlog.get_logger()

_FAMILIES = {None: socket.AF_UNSPEC, 4: socket.AF_INET, 6: socket.AF_INET6}
# The machine has no address of this family, or not this one of those that a name stands for.
_NOT_HERE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
# Bytes of datagrams that may wait; Linux cuts it to net.core.rmem_max (socket(7)).
DATAGRAM_BUFFER = 4 * 1024 * 1024
_LAST_STANDARD_STREAM = 2
# Times to look for a free port that is free on every address of a host.
_PORT_ATTEMPTS = 20


@dataclass(slots=True)
class Listening:
    """One address that the server listens on.

    Attributes:
        endpoint: the address, once port 0 has become a port.
        sockets: a listener (UDP: a socket) for each worker slot, or one that all of them share.
        inherited: another process opened it, and may go on listening after this one.
    """

    endpoint: Endpoint
    sockets: list[socket.socket]
    inherited: bool = False

    def of_slot(self, slot: int) -> socket.socket:
        """Return the listener that a worker serves."""
        return self.sockets[slot % len(self.sockets)]


@dataclass(slots=True)
class Listeners:
    """All listeners of a server; a context manager that closes them.

    Attributes:
        listening: the addresses, in the order in which they were asked for.
    """

    listening: list[Listening] = field(default_factory=list)
    _files: list[tuple[Path, os.stat_result]] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.remove_files()
        self.close()

    def of_slot(self, slot: int) -> list[tuple[str, socket.socket]]:
        """Return the listeners of one worker: for each address its scheme and a listener."""
        return [(one.endpoint.scheme, one.of_slot(slot)) for one in self.listening]

    def of_slot_alone(self, slot: int) -> list[tuple[str, socket.socket]]:
        """Return the listeners of one worker that no other slot shares."""
        return [
            (one.endpoint.scheme, one.of_slot(slot))
            for one in self.listening
            if len(one.sockets) > 1
        ]

    def announce(self) -> None:
        """Print a line for each address to standard output."""
        announce("\n".join(f"listening {listening.endpoint}" for listening in self.listening))

    def add_unix(self, endpoint: UnixEndpoint, config: ServerConfig) -> None:
        """Listen on a unix socket that all slots share."""
        listener = _listen_unix(endpoint, config)
        self.listening.append(Listening(endpoint, [listener]))
        if endpoint.is_abstract:
            return
        path = Path(endpoint.path)
        try:
            self._files.append((path, path.stat()))
        except OSError as error:
            raise _cannot(endpoint, error) from error

    def remove_files(self) -> None:
        """Remove the files of unix sockets, except those that another server has replaced."""
        for path, made in self._files:
            try:
                with locked(path.parent):
                    if os.path.samestat(made, path.stat()):
                        path.unlink()
            except FileNotFoundError:
                continue
            except OSError as error:
                log.warning("unix socket not removed", path=str(path), reason=error.strerror)
        self._files.clear()

    def stop_queueing(self) -> None:
        """Let backlogs only shrink (listen(2)), except those of inherited listeners."""
        for listening in self.listening:
            for listener in listening.sockets:
                if not listening.inherited and listener.type == socket.SOCK_STREAM:
                    listener.listen(0)

    def close(self) -> None:
        """Close this process's descriptors of all listeners."""
        for listening in self.listening:
            for listener in listening.sockets:
                listener.close()


def open_listeners(config: ServerConfig) -> Listeners:
    """Open every listener of a configuration, for each worker slot; all are non-blocking.

    With several workers each slot has a TCP or UDP socket of its own on the same port
    (SO_REUSEPORT, socket(7)), and the kernel spreads connections and datagrams over them. A port
    that another process holds is an error all the same.

    Raises:
        ListenError: a host is unknown, or an address cannot be listened on.
    """
    listeners = Listeners()
    try:
        for endpoint in config.listen:
            match endpoint:
                case NetworkEndpoint():
                    listeners.listening += _listen_network(endpoint, config)
                case UnixEndpoint():
                    listeners.add_unix(endpoint, config)
                case DescriptorEndpoint():
                    listener = inherited_listener(endpoint.number)
                    listeners.listening.append(
                        Listening(bound_endpoint(listener), [listener], inherited=True)
                    )
    except BaseException:
        listeners.__exit__(None, None, None)
        raise
    return listeners


def inherited_listener(descriptor: int) -> socket.socket:
    """Take over a stream listener or a datagram socket that another process opened.

    Raises:
        ListenError: the descriptor is not open, or neither of these.
    """
    try:
        listener = socket.socket(fileno=_beyond_standard_streams(descriptor))
    except OSError as error:
        reason = "it is not open" if error.errno == errno.EBADF else "it is not a socket"
        raise ListenError(f"cannot listen on fd://{descriptor}: {reason}") from error
    if not _can_serve(listener):
        listener.detach()
        raise ListenError(
            f"cannot listen on fd://{descriptor}: it is neither a listening stream socket nor a "
            "bound UDP socket"
        )
    if listener.family != socket.AF_UNIX and listener.type == socket.SOCK_STREAM:
        _set_stream_options(listener)
    listener.setblocking(False)
    listener.set_inheritable(False)
    return listener


def _beyond_standard_streams(descriptor: int) -> int:
    """Move a descriptor from 0 to 2, which child processes use for their standard streams."""
    if descriptor > _LAST_STANDARD_STREAM:
        return descriptor
    moved: int = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _LAST_STANDARD_STREAM + 1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, descriptor)
    os.close(nothing)
    return moved


def bound_endpoint(listener: socket.socket, transport: Transport | None = None) -> Endpoint:
    """Return the address that a listener listens on, with the port chosen for port 0.

    What a socket does not show is whether TLS is spoken there: that the transport says.
    """
    address = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        try:
            return UnixEndpoint(unix_path(address))
        except ValueError:
            # Without a name, or with one that cannot be written, it still is a listener.
            return UnixEndpoint("(unnamed)")
    plain: Transport = "udp" if listener.type == socket.SOCK_DGRAM else "tcp"
    return NetworkEndpoint(host_of(address), address[1], transport or plain)


def _can_serve(listener: socket.socket) -> bool:
    if listener.type == socket.SOCK_DGRAM:
        return listener.family in {socket.AF_INET, socket.AF_INET6} and listener.getsockname()[1]
    accepts = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    return listener.type == socket.SOCK_STREAM and bool(accepts)


def listen_tcp(endpoint: NetworkEndpoint, backlog: int) -> socket.socket:
    """Open a non-blocking listener on the first address that a host resolves to.

    Raises:
        ListenError: the host is unknown, or the address cannot be listened on.
    """
    family, sockaddr = _resolve(endpoint, None)[0]
    try:
        return _bound(family, sockaddr, socket.SOCK_STREAM, backlog)
    except OSError as error:
        raise _cannot(endpoint, error) from error


def _cannot(endpoint: Endpoint, error: OSError) -> ListenError:
    return ListenError(f"cannot listen on {endpoint}: {error.strerror}")


def _resolve(
    endpoint: NetworkEndpoint, version: IpVersion | None
) -> Sequence[tuple[int, tuple[Any, ...]]]:
    host = None if endpoint.host == ANY_HOST else endpoint.host
    try:
        found = socket.getaddrinfo(
            host,
            endpoint.port,
            family=_FAMILIES[version],
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )
    except socket.gaierror as error:
        raise ListenError(f"cannot listen on {endpoint}: {error.strerror}") from error
    return list(dict.fromkeys((family, tuple(address)) for family, _, _, _, address in found))


def _listen_network(endpoint: NetworkEndpoint, config: ServerConfig) -> list[Listening]:
    """Listen on every address of a host, on the same port."""
    addresses = _resolve(endpoint, config.ip_version)
    for attempt in range(_PORT_ATTEMPTS):
        opened: list[Listening] = []
        try:
            opened.extend(_listen_addresses(endpoint, addresses, config))
        except OSError as error:
            for listening in opened:
                for listener in listening.sockets:
                    listener.close()
            # Any free port of one family may be taken in the other.
            again = endpoint.port == 0 and opened and attempt + 1 < _PORT_ATTEMPTS
            if not (again and error.errno == errno.EADDRINUSE):
                raise _cannot(endpoint, error) from error
        else:
            return opened
    raise AssertionError("the last attempt returns or raises")


def _listen_addresses(
    endpoint: NetworkEndpoint,
    addresses: Sequence[tuple[int, tuple[Any, ...]]],
    config: ServerConfig,
) -> Iterator[Listening]:
    port = endpoint.port
    kind = socket.SOCK_DGRAM if endpoint.transport == "udp" else socket.SOCK_STREAM
    missing: OSError | None = None
    found = False
    for family, sockaddr in addresses:
        only_v6 = len(addresses) > 1 or config.ip_version == 6 or _ipv4_beside(endpoint, config)
        address = (sockaddr[0], port, *sockaddr[2:])
        try:
            sockets = _slots(family, address, kind, config, only_v6=only_v6)
        except OSError as error:
            if error.errno not in _NOT_HERE or len(addresses) == 1:
                raise
            missing = error
            continue
        found = True
        port = sockets[0].getsockname()[1]
        yield Listening(bound_endpoint(sockets[0], endpoint.transport), sockets)
    if missing and not found:
        raise missing


def _ipv4_beside(endpoint: NetworkEndpoint, config: ServerConfig) -> bool:
    """Return True if IPv4 has a listener of its own on the port, so [::] must not include it."""
    return any(
        isinstance(other, NetworkEndpoint)
        and other != endpoint
        and other.port == endpoint.port
        and (other.transport == "udp") == (endpoint.transport == "udp")
        and other.ip_version != 6
        for other in config.listen
    )


def _slots(
    family: int,
    address: tuple[Any, ...],
    kind: int,
    config: ServerConfig,
    *,
    only_v6: bool,
) -> list[socket.socket]:
    if config.workers == 1:
        return [_bound(family, address, kind, config.backlog, only_v6=only_v6)]
    if address[1]:
        # Listeners that share a port would share it with any server of this user's too.
        _bound(family, address, kind, None, only_v6=only_v6).close()
    sockets: list[socket.socket] = []
    try:
        for _ in range(config.workers):
            sockets.append(
                _bound(family, address, kind, config.backlog, only_v6=only_v6, share_port=True)
            )
            address = (address[0], sockets[0].getsockname()[1], *address[2:])
    except OSError:
        for listener in sockets:
            listener.close()
        raise
    return sockets


def _bound(
    family: int,
    address: tuple[Any, ...],
    kind: int,
    backlog: int | None,
    *,
    only_v6: bool = False,
    share_port: bool = False,
) -> socket.socket:
    """Return a bound socket; a stream socket with a backlog also listens."""
    listener = socket.socket(family, kind)
    try:
        if kind == socket.SOCK_STREAM:
            # Not for datagrams: there it would let a second server take the same port.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            _set_stream_options(listener)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, DATAGRAM_BUFFER)
        if share_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(only_v6))
        listener.setblocking(False)
        listener.bind(address)
        if backlog is not None and kind == socket.SOCK_STREAM:
            listener.listen(backlog)
    except OSError:
        listener.close()
        raise
    return listener


def _set_stream_options(listener: socket.socket) -> None:
    """Set options that accepted connections inherit, which saves system calls for each.

    An echo waits for nothing (TCP_NODELAY, tcp(7)), and urgent data stands in line with the rest
    and is echoed with it (SO_OOBINLINE, socket(7)).
    """
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)


def _listen_abstract(endpoint: UnixEndpoint, backlog: int) -> socket.socket:
    """Listen on an abstract name, which has no file and thus no permissions (Linux only)."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        listener.bind(endpoint.sockaddr)
        listener.listen(backlog)
    except OSError as error:
        listener.close()
        raise _cannot(endpoint, error) from error
    return listener


def _listen_unix(endpoint: UnixEndpoint, config: ServerConfig) -> socket.socket:
    if endpoint.is_abstract:
        return _listen_abstract(endpoint, config.backlog)
    path = Path(endpoint.path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        # Between bind and listen the socket of another server that starts looks stale.
        with locked(path.parent):
            try:
                listener.bind(endpoint.path)
            except OSError as error:
                if error.errno != errno.EADDRINUSE or not _is_stale(endpoint):
                    raise
                path.unlink()
                listener.bind(endpoint.path)
            # No client can connect before listen, so the permissions are never too wide.
            path.chmod(config.unix_mode)
            listener.listen(config.backlog)
    except OSError as error:
        listener.close()
        raise _cannot(endpoint, error) from error
    except ListenError:
        listener.close()
        raise
    return listener


def _is_stale(endpoint: UnixEndpoint) -> bool:
    """Return True if a file is a stale socket: one without a listener."""
    if not stat.S_ISSOCK(Path(endpoint.path).stat().st_mode):
        raise ListenError(f"cannot listen on {endpoint}: the path exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(endpoint.path)
        except ConnectionRefusedError:
            return True
        except OSError:
            # A full backlog is a listener's too.
            return False
    return False
