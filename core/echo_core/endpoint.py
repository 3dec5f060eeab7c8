"""Where an echo service listens, as people write it and as the programs print it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Self

from echo_core.errors import InvalidValueError

DEFAULT_PORT = 50007
SCHEMES = ("tcp",)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host and a port to listen on or to connect to.

    Attributes:
        host: a name or an address; IPv6 addresses without brackets.
        port: 0 to 65535; 0 asks the system for a free port when listening.
    """

    host: str
    port: int = DEFAULT_PORT

    def __post_init__(self) -> None:
        if not _is_host(self.host):
            raise InvalidValueError(f"{self.host!r} is not a host name or address")
        if not 0 <= self.port <= 65535:
            raise InvalidValueError(f"port {self.port} is not between 0 and 65535")

    @property
    def scheme(self) -> str:
        """The transport; `tcp`."""
        return SCHEMES[0]

    def __str__(self) -> str:
        """The form that `parse` reads: `tcp://127.0.0.1:50007`, `tcp://[::1]:50007`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `tcp://HOST:PORT`, `HOST:PORT` or `HOST` (port 50007).

        IPv6 addresses stand in brackets (RFC 3986, section 3.2.2) wherever a port follows.

        Raises:
            InvalidValueError: the text is none of these.
        """
        scheme, separator, rest = text.rpartition("://")
        if separator and scheme not in SCHEMES:
            raise InvalidValueError(
                f"{text!r}: the scheme {scheme!r} is not supported; write tcp://HOST:PORT"
            )
        host, port = _split_port(rest, text)
        if not host:
            raise InvalidValueError(f"{text!r} names no host; write HOST:PORT")
        if port is None:
            return cls(host)
        if not (port.isascii() and port.isdigit() and len(port) <= 5) or int(port) > 65535:
            raise InvalidValueError(f"{text!r}: {port!r} is not a port between 0 and 65535")
        return cls(host, int(port))


def _split_port(rest: str, text: str) -> tuple[str, str | None]:
    """Part `HOST[:PORT]`; the port is None where none is given."""
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


def _is_host(text: str) -> bool:
    if not text or any(character.isspace() for character in text):
        return False
    try:
        # What the resolver does with it first (RFC 3490).
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
