"""Endpoints of an echo service: parsing, validation and printing."""

from __future__ import annotations

import ipaddress
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from echo_core.errors import InvalidValueError

DEFAULT_PORT = 50007
Transport = Literal["tcp", "tls", "udp"]
TRANSPORTS: tuple[Transport, ...] = ("tcp", "tls", "udp")
# sun_path has 108 bytes (unix(7)), one of them null: the last of a path, the first of an abstract
# name.
LONGEST_UNIX_PATH = 107
# All addresses of the machine, IPv4 and IPv6.
ANY_HOST = "*"


_FORMS = "write tcp://HOST:PORT, tls://HOST:PORT, udp://HOST:PORT, unix://PATH or fd://N"
_TARGET_FORMS = "write tcp://HOST:PORT, tls://HOST:PORT, udp://HOST:PORT or unix://PATH"


class Endpoint(ABC):
    """An address to listen on or to connect to; `str` returns the form that `parse` reads."""

    __slots__ = ()

    @property
    @abstractmethod
    def scheme(self) -> str:
        """The part before `://`: `tcp`, `tls`, `udp`, `unix` or `fd`."""

    @property
    @abstractmethod
    def location(self) -> str:
        """The part after `://`: `127.0.0.1:50007`, `[::1]:50007`, `/run/echo.sock`."""

    def __str__(self) -> str:
        """Return the form that `parse` reads: `tcp://127.0.0.1:50007`, `unix:///run/echo.sock`."""
        return f"{self.scheme}://{self.location}"

    @staticmethod
    def parse(text: str) -> Endpoint:
        """Parse `tcp://HOST:PORT` (or `tls`, `udp`), `HOST:PORT`, `HOST`, `unix://PATH` or `fd://N`.

        The default port is 50007 and the default transport TCP. `unix://@NAME` is a name in the
        abstract namespace (unix(7)).

        An IPv6 address is written in brackets (RFC 3986, section 3.2.2) wherever a port follows.

        Raises:
            InvalidValueError: the text has none of these forms.
        """
        scheme, separator, rest = text.partition("://")
        if not separator:
            scheme, rest = "tcp", text
        if scheme in TRANSPORTS:
            return _parse_network(rest, text, scheme)
        if scheme == "unix":
            return UnixEndpoint(rest)
        if scheme == "fd":
            if not (rest.isascii() and rest.isdigit() and len(rest) <= 9):
                raise InvalidValueError(f"{text!r}: {rest!r} is not a descriptor; write fd://3")
            return DescriptorEndpoint(int(rest))
        raise InvalidValueError(f"{text!r}: the scheme {scheme!r} is not supported; {_FORMS}")


@dataclass(frozen=True, slots=True)
class NetworkEndpoint(Endpoint):
    """A host and a port.

    Attributes:
        host: a name or an address, an IPv6 address without brackets; `*` stands for all addresses.
        port: 0 to 65535; a listener on port 0 gets a free port from the system.
        transport: `tcp`, `tls` (over TCP) or `udp`.
    """

    host: str
    port: int = DEFAULT_PORT
    transport: Transport = "tcp"

    def __post_init__(self) -> None:
        if not _is_host(self.host):
            raise InvalidValueError(f"{self.host!r} is not a host name or address")
        if not 0 <= self.port <= 65535:
            raise InvalidValueError(f"port {self.port} is not between 0 and 65535")

    @property
    def scheme(self) -> str:
        """The transport."""
        return self.transport

    @property
    def location(self) -> str:
        """`HOST:PORT`, an IPv6 address in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def ip_version(self) -> int | None:
        """4 or 6 if the host is an address; None if it is a name."""
        try:
            return ipaddress.ip_address(self.host).version
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class UnixEndpoint(Endpoint):
    """A unix stream socket in the file system or in Linux's abstract namespace (unix(7)).

    Attributes:
        path: a path of up to 107 bytes, or `@` and an abstract name of up to 107 bytes. A file
            whose name begins with @ is written `./@name`.
    """

    path: str

    def __post_init__(self) -> None:
        name = self.path.removeprefix("@")
        try:
            size = len(name.encode("utf-8", "surrogateescape"))
        except UnicodeEncodeError as error:
            raise InvalidValueError(f"{self.path!r} is not a valid file name") from error
        if not name or "\0" in name:
            raise InvalidValueError(f"{self!s:.80} has no path; write unix:///run/echo.sock")
        if size > LONGEST_UNIX_PATH:
            raise InvalidValueError(
                f"{self.path!r} has {size} bytes; a unix socket path can have at most "
                f"{LONGEST_UNIX_PATH}"
            )

    @property
    def is_abstract(self) -> bool:
        """True if this is a name in the abstract namespace, which has no file."""
        return self.path.startswith("@")

    @property
    def sockaddr(self) -> str:
        """The address for a socket's `bind` and `connect`."""
        return f"\0{self.path[1:]}" if self.is_abstract else self.path

    @property
    def scheme(self) -> str:
        """Always `unix`."""
        return "unix"

    @property
    def location(self) -> str:
        """The path, or `@` and the abstract name."""
        return self.path


@dataclass(frozen=True, slots=True)
class DescriptorEndpoint(Endpoint):
    """A listener that this process inherited as an open descriptor.

    Attributes:
        number: the descriptor.
    """

    number: int

    @property
    def scheme(self) -> str:
        """Always `fd`."""
        return "fd"

    @property
    def location(self) -> str:
        """The number of the descriptor."""
        return str(self.number)


def parse_target(text: str) -> Endpoint:
    """Parse an endpoint to connect to, in the forms of `Endpoint.parse`.

    Raises:
        InvalidValueError: the text is not an endpoint, or is one that can only be listened on.
    """
    try:
        endpoint = Endpoint.parse(text)
    except InvalidValueError as error:
        raise InvalidValueError(str(error).replace(_FORMS, _TARGET_FORMS)) from error
    match endpoint:
        case NetworkEndpoint(port=0):
            raise InvalidValueError(f"{text!r}: port 0 cannot be connected to; write HOST:PORT")
        case NetworkEndpoint(host="*"):
            raise InvalidValueError(f"{text!r}: * is only for listening; write HOST:PORT")
        case DescriptorEndpoint():
            raise InvalidValueError(f"{text!r}: fd:// is only for listening; {_TARGET_FORMS}")
    return endpoint


def parse_http_address(text: str) -> NetworkEndpoint:
    """Parse the address of an HTTP server: `HOST:PORT` or `http://HOST:PORT`, port required.

    Raises:
        InvalidValueError: the text has neither form.
    """
    location = text.removeprefix("http://").rstrip("/")
    try:
        endpoint = _parse_network(location, text, "tcp")
        has_port = _split_port(location, text)[1] is not None
    except InvalidValueError:
        has_port = False
    if not has_port:
        raise InvalidValueError(
            f"{text!r} is not HOST:PORT; write it as in 127.0.0.1:9607 (the port is required)"
        )
    return endpoint


def _parse_network(rest: str, text: str, transport: Transport) -> NetworkEndpoint:
    host, port = _split_port(rest, text)
    if not host:
        raise InvalidValueError(f"{text!r} has no host; write HOST:PORT")
    if port is None:
        return NetworkEndpoint(host, transport=transport)
    if not (port.isascii() and port.isdigit() and len(port) <= 5) or int(port) > 65535:
        raise InvalidValueError(f"{text!r}: {port!r} is not a port between 0 and 65535")
    return NetworkEndpoint(host, int(port), transport)


def _split_port(rest: str, text: str) -> tuple[str, str | None]:
    """Split `HOST[:PORT]`; the port is None if there is none."""
    if rest.startswith("["):
        host, bracket, tail = rest[1:].partition("]")
        if not bracket or not _is_ipv6(host) or (tail and not tail.startswith(":")):
            raise InvalidValueError(f"{text!r}: write an IPv6 address as [ADDRESS]:PORT")
        return host, tail[1:] if tail else None
    if _is_ipv6(rest):
        return rest, None
    if rest.count(":") > 1 or "/" in rest:
        raise InvalidValueError(f"{text!r} is not HOST:PORT")
    host, colon, port = rest.partition(":")
    return host, port if colon else None


def parse_host(text: str) -> str:
    """Return a host name or an address, without the brackets that an IPv6 address may have.

    Raises:
        InvalidValueError: the text is neither.
    """
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if not _is_host(bare) or (bare != text and not _is_ipv6(bare)):
        raise InvalidValueError(f"{text!r} is not a host name or address")
    return bare


def _is_host(text: str) -> bool:
    if not text or any(character.isspace() or character in "[]" for character in text):
        return False
    if ":" in text:
        return _is_ipv6(text)
    try:
        # The first thing that the resolver does with a name (RFC 3490).
        text.encode("idna")
    except UnicodeError:
        return _is_ipv6(text)
    return True


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
