"""Creation of the sockets that the server listens on.

This module works in a supervisor, which is never monkey-patched, and in a worker, which is.
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
# The machine lacks this address, or the address family.
_ADDRESS_UNAVAILABLE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
# Bytes of datagrams queued by the kernel; Linux reduces it to net.core.rmem_max (socket(7)).
DATAGRAM_BUFFER = 4 * 1024 * 1024
_LAST_STANDARD_STREAM = 2
# Attempts to find a port that is free on every address of a host.
_PORT_ATTEMPTS = 20


@dataclass(slots=True)
class ListeningAddress:
    """An address that the server listens on, with its sockets.

    Attributes:
        endpoint: the address, with the port that the system chose for port 0.
        sockets: a listener, or a UDP socket, for each worker slot, or one that all slots share.
        inherited: True if another process opened the socket; it may continue to listen on it.
    """

    endpoint: Endpoint
    sockets: list[socket.socket]
    inherited: bool = False

    def for_slot(self, slot: int) -> socket.socket:
        """Return the socket that the worker of a slot serves."""
        return self.sockets[slot % len(self.sockets)]


@dataclass(slots=True)
class Listeners:
    """All listeners of a server; a context manager that closes them.

    Attributes:
        addresses: the addresses, in the order of the configuration.
    """

    addresses: list[ListeningAddress] = field(default_factory=list)
    _socket_files: list[tuple[Path, os.stat_result]] = field(default_factory=list)

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

    def for_slot(self, slot: int) -> list[tuple[str, socket.socket]]:
        """Return the listeners of a slot, one per address, each with its scheme."""
        return [(one.endpoint.scheme, one.for_slot(slot)) for one in self.addresses]

    def exclusive_to_slot(self, slot: int) -> list[tuple[str, socket.socket]]:
        """Return the listeners of a slot that no other slot shares, each with its scheme."""
        return [
            (one.endpoint.scheme, one.for_slot(slot))
            for one in self.addresses
            if len(one.sockets) > 1
        ]

    def announce(self) -> None:
        """Print `listening ENDPOINT` for each address to standard output."""
        announce("\n".join(f"listening {address.endpoint}" for address in self.addresses))

    def add_unix(self, endpoint: UnixEndpoint, config: ServerConfig) -> None:
        """Listen on a unix socket that all slots share."""
        listener = _listen_unix(endpoint, config)
        self.addresses.append(ListeningAddress(endpoint, [listener]))
        if endpoint.is_abstract:
            return
        path = Path(endpoint.path)
        try:
            self._socket_files.append((path, path.stat()))
        except OSError as error:
            raise _listen_error(endpoint, error) from error

    def remove_files(self) -> None:
        """Remove the files of unix sockets, except those that another server has replaced."""
        for path, created in self._socket_files:
            try:
                with locked(path.parent):
                    if os.path.samestat(created, path.stat()):
                        path.unlink()
            except FileNotFoundError:
                continue
            except OSError as error:
                log.warning("unix socket not removed", path=str(path), reason=error.strerror)
        self._socket_files.clear()

    def stop_queueing(self) -> None:
        """Set the backlog of each listener to 0, except those of inherited listeners.

        Linux then queues a new connection only while no other connection is queued.
        """
        for address in self.addresses:
            for listener in address.sockets:
                if not address.inherited and listener.type == socket.SOCK_STREAM:
                    listener.listen(0)

    def close(self) -> None:
        """Close this process's descriptors of all listeners."""
        for address in self.addresses:
            for listener in address.sockets:
                listener.close()


def open_listeners(config: ServerConfig) -> Listeners:
    """Open all listeners of a configuration, non-blocking, for each worker slot.

    With several workers, each slot has a TCP or UDP socket of its own on the same port
    (SO_REUSEPORT, socket(7)), and the kernel distributes connections and datagrams among them. A
    port that another process already uses is still an error.

    Raises:
        ListenError: a host cannot be resolved, or an address cannot be listened on.
    """
    listeners = Listeners()
    try:
        for endpoint in config.listen:
            match endpoint:
                case NetworkEndpoint():
                    listeners.addresses += _listen_network(endpoint, config)
                case UnixEndpoint():
                    listeners.add_unix(endpoint, config)
                case DescriptorEndpoint():
                    listener = inherited_listener(endpoint.number)
                    listeners.addresses.append(
                        ListeningAddress(bound_endpoint(listener), [listener], inherited=True)
                    )
    except BaseException:
        listeners.__exit__(None, None, None)
        raise
    return listeners


def inherited_listener(descriptor: int) -> socket.socket:
    """Return a stream listener or a bound UDP socket that another process opened.

    Raises:
        ListenError: the descriptor is not open, or is not one of these.
    """
    try:
        listener = socket.socket(fileno=_above_standard_streams(descriptor))
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


def _above_standard_streams(descriptor: int) -> int:
    """Move a descriptor out of 0 to 2, which child processes use for their standard streams."""
    if descriptor > _LAST_STANDARD_STREAM:
        return descriptor
    moved: int = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _LAST_STANDARD_STREAM + 1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, descriptor)
    os.close(null)
    return moved


def bound_endpoint(listener: socket.socket, transport: Transport | None = None) -> Endpoint:
    """Return the address that a socket is bound to.

    Args:
        listener: a listener or a UDP socket.
        transport: the transport, since a socket does not show if it is for TLS; None for plain TCP
            or UDP.
    """
    address = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        try:
            return UnixEndpoint(unix_path(address))
        except ValueError:
            # It can still be served, although it has no name or one that cannot be printed.
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
        ListenError: the host cannot be resolved, or the address cannot be listened on.
    """
    family, sockaddr = _resolve(endpoint, None)[0]
    try:
        return _bound_socket(family, sockaddr, socket.SOCK_STREAM, backlog)
    except OSError as error:
        raise _listen_error(endpoint, error) from error


def _listen_error(endpoint: Endpoint, error: OSError) -> ListenError:
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


def _listen_network(endpoint: NetworkEndpoint, config: ServerConfig) -> list[ListeningAddress]:
    """Listen on every address of a host, on the same port.

    Raises:
        ListenError: the host cannot be resolved, or an address cannot be listened on.
    """
    addresses = _resolve(endpoint, config.ip_version)
    for attempt in range(_PORT_ATTEMPTS):
        opened: list[ListeningAddress] = []
        try:
            opened.extend(_listen_addresses(endpoint, addresses, config))
        except OSError as error:
            for address in opened:
                for listener in address.sockets:
                    listener.close()
            # The port chosen for the first address may be in use on another one.
            retry = endpoint.port == 0 and opened and attempt + 1 < _PORT_ATTEMPTS
            if not (retry and error.errno == errno.EADDRINUSE):
                raise _listen_error(endpoint, error) from error
        else:
            return opened
    raise AssertionError("the last attempt returns or raises")


def _listen_addresses(
    endpoint: NetworkEndpoint,
    addresses: Sequence[tuple[int, tuple[Any, ...]]],
    config: ServerConfig,
) -> Iterator[ListeningAddress]:
    port = endpoint.port
    kind = socket.SOCK_DGRAM if endpoint.transport == "udp" else socket.SOCK_STREAM
    unavailable: OSError | None = None
    is_listening = False
    for family, sockaddr in addresses:
        only_v6 = (
            len(addresses) > 1 or config.ip_version == 6 or _has_ipv4_listener(endpoint, config)
        )
        address = (sockaddr[0], port, *sockaddr[2:])
        try:
            sockets = _sockets_for_slots(family, address, kind, config, only_v6=only_v6)
        except OSError as error:
            if error.errno not in _ADDRESS_UNAVAILABLE or len(addresses) == 1:
                raise
            unavailable = error
            continue
        is_listening = True
        port = sockets[0].getsockname()[1]
        yield ListeningAddress(bound_endpoint(sockets[0], endpoint.transport), sockets)
    if unavailable and not is_listening:
        raise unavailable


def _has_ipv4_listener(endpoint: NetworkEndpoint, config: ServerConfig) -> bool:
    """Return True if IPv4 may have a listener of its own on the port, so [::] must exclude it."""
    return any(
        isinstance(other, NetworkEndpoint)
        and other != endpoint
        and other.port == endpoint.port
        and (other.transport == "udp") == (endpoint.transport == "udp")
        and other.ip_version != 6
        for other in config.listen
    )


def _sockets_for_slots(
    family: int,
    address: tuple[Any, ...],
    kind: int,
    config: ServerConfig,
    *,
    only_v6: bool,
) -> list[socket.socket]:
    if config.workers == 1:
        return [_bound_socket(family, address, kind, config.backlog, only_v6=only_v6)]
    if address[1]:
        # SO_REUSEPORT would also share the port with another server of the same user: fail if the
        # port is in use.
        _bound_socket(family, address, kind, None, only_v6=only_v6).close()
    sockets: list[socket.socket] = []
    try:
        for _ in range(config.workers):
            sockets.append(
                _bound_socket(
                    family, address, kind, config.backlog, only_v6=only_v6, share_port=True
                )
            )
            address = (address[0], sockets[0].getsockname()[1], *address[2:])
    except OSError:
        for listener in sockets:
            listener.close()
        raise
    return sockets


def _bound_socket(
    family: int,
    address: tuple[Any, ...],
    kind: int,
    backlog: int | None,
    *,
    only_v6: bool = False,
    share_port: bool = False,
) -> socket.socket:
    """Return a bound, non-blocking socket; a stream socket listens if a backlog is given."""
    listener = socket.socket(family, kind)
    try:
        if kind == socket.SOCK_STREAM:
            # Not for UDP, where it would let a second server bind the same port.
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
    """Set options that accepted connections inherit, which saves system calls per connection.

    TCP_NODELAY (tcp(7)) sends each echo without delay, and SO_OOBINLINE (socket(7)) keeps urgent
    data in the stream, so that it is echoed in order.
    """
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)


def _listen_abstract(endpoint: UnixEndpoint, backlog: int) -> socket.socket:
    """Listen on an abstract name (Linux only), which has no file and thus no file mode."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        listener.bind(endpoint.sockaddr)
        listener.listen(backlog)
    except OSError as error:
        listener.close()
        raise _listen_error(endpoint, error) from error
    return listener


def _listen_unix(endpoint: UnixEndpoint, config: ServerConfig) -> socket.socket:
    if endpoint.is_abstract:
        return _listen_abstract(endpoint, config.backlog)
    path = Path(endpoint.path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        # Without the lock, a server between its bind and its listen would seem to be stale.
        with locked(path.parent):
            try:
                listener.bind(endpoint.path)
            except OSError as error:
                if error.errno != errno.EADDRINUSE or not _is_stale(endpoint):
                    raise
                path.unlink()
                listener.bind(endpoint.path)
            # Before listen no client can connect, so the default mode is never in effect.
            path.chmod(config.unix_mode)
            listener.listen(config.backlog)
    except OSError as error:
        listener.close()
        raise _listen_error(endpoint, error) from error
    except ListenError:
        listener.close()
        raise
    return listener


def _is_stale(endpoint: UnixEndpoint) -> bool:
    """Return True if the file of a unix socket is stale: no process listens on it.

    Raises:
        ListenError: the file is not a socket.
    """
    if not stat.S_ISSOCK(Path(endpoint.path).stat().st_mode):
        raise ListenError(f"cannot listen on {endpoint}: the path exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(endpoint.path)
        except ConnectionRefusedError:
            return True
        except OSError:
            # For example EAGAIN: there is a listener, whose backlog is full.
            return False
    return False
