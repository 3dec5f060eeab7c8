from __future__ import annotations

import ipaddress
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo_core.endpoint import (
    DEFAULT_PORT,
    DescriptorEndpoint,
    Endpoint,
    NetworkEndpoint,
    UnixEndpoint,
    parse_host,
    parse_target,
)
from echo_core.errors import InvalidValueError

names = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?(\.[a-z]{2,8})?", fullmatch=True)
hosts = names | st.ip_addresses().map(str)


@pytest.mark.slow
@given(hosts, st.integers(0, 65535))
def test_printed_endpoints_are_parsed_back(host: str, port: int) -> None:
    endpoint = NetworkEndpoint(host, port)
    assert Endpoint.parse(str(endpoint)) == endpoint
    assert Endpoint.parse(str(endpoint).removeprefix("tcp://")) == endpoint


@given(st.text(max_size=30))
def test_any_text_is_an_endpoint_or_a_clear_error(text: str) -> None:
    with suppress(InvalidValueError):
        endpoint = Endpoint.parse(text)
        assert Endpoint.parse(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("localhost", "localhost", DEFAULT_PORT),
        ("localhost:7", "localhost", 7),
        ("tcp://10.0.0.1:50007", "10.0.0.1", 50007),
        ("tcp://[::1]:7", "::1", 7),
        ("[::1]", "::1", DEFAULT_PORT),
        ("::1", "::1", DEFAULT_PORT),
    ],
)
def test_forms(text: str, host: str, port: int) -> None:
    assert Endpoint.parse(text) == NetworkEndpoint(host, port)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "no host"),
        (":50007", "no host"),
        ("localhost:", "not a port"),
        ("localhost:abc", "not a port"),
        ("localhost:65536", "not a port"),
        ("localhost:-1", "not a port"),
        ("localhost:\u0661", "not a port"),
        ("ftp://localhost:21", "scheme 'ftp'"),
        ("a://b://c", "scheme 'a'"),
        ("tcp://", "no host"),
        ("unix://", "has no path"),
        ("unix://a\0b", "has no path"),
        ("unix://@", "has no path"),
        ("unix://@" + "x" * 108, "108 bytes"),
        ("unix://" + "\u00e9" * 54, "108 bytes"),
        ("unix://\ud800", "valid file name"),
        ("fd://", "not a descriptor"),
        ("fd://-1", "not a descriptor"),
        ("fd://\u0661", "not a descriptor"),
        ("fd://9999999999", "not a descriptor"),
        ("[::1:7", r"\[ADDRESS\]:PORT"),
        ("[localhost]:7", r"\[ADDRESS\]:PORT"),
        ("[::1]7", r"\[ADDRESS\]:PORT"),
        ("a:b:c", "not HOST:PORT"),
        ("localhost:7/path", "not HOST:PORT"),
        ("local host:7", "not a host name"),
        ("a" * 64 + ".example:7", "not a host name"),
    ],
)
def test_bad_input_is_named(text: str, hint: str) -> None:
    with pytest.raises(InvalidValueError, match=hint):
        Endpoint.parse(text)


def test_ipv6_addresses_are_printed_in_brackets() -> None:
    assert str(NetworkEndpoint(str(ipaddress.IPv6Address(1)), 7)) == "tcp://[::1]:7"


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("unix:///run/echo.sock", UnixEndpoint("/run/echo.sock")),
        ("unix://echo.sock", UnixEndpoint("echo.sock")),
        ("unix:///a b/\u00e9", UnixEndpoint("/a b/\u00e9")),
        ("unix:///" + "x" * 106, UnixEndpoint("/" + "x" * 106)),
        ("unix://@echo", UnixEndpoint("@echo")),
        ("unix://@" + "x" * 107, UnixEndpoint("@" + "x" * 107)),
        ("unix://./@echo", UnixEndpoint("./@echo")),
        ("tcp://[fe80::1%eth0]:7", NetworkEndpoint("fe80::1%eth0", 7)),
        ("fd://3", DescriptorEndpoint(3)),
        ("*", NetworkEndpoint("*")),
        ("*:7", NetworkEndpoint("*", 7)),
    ],
)
def test_other_transports(text: str, endpoint: Endpoint) -> None:
    assert Endpoint.parse(text) == endpoint
    assert Endpoint.parse(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    ("host", "version"), [("10.0.0.1", 4), ("::1", 6), ("localhost", None), ("*", None)]
)
def test_the_ip_version_of_an_address(host: str, version: int | None) -> None:
    assert NetworkEndpoint(host).ip_version == version


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("localhost", NetworkEndpoint("localhost")),
        ("[::1]:7", NetworkEndpoint("::1", 7)),
        ("tls://localhost:7", NetworkEndpoint("localhost", 7, "tls")),
        ("udp://10.0.0.1:65535", NetworkEndpoint("10.0.0.1", 65535, "udp")),
        ("unix:///run/echo.sock", UnixEndpoint("/run/echo.sock")),
    ],
)
def test_targets(text: str, endpoint: Endpoint) -> None:
    assert parse_target(text) == endpoint


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "has no host"),
        ("localhost:0", r"'localhost:0': port 0 cannot be connected to; write HOST:PORT"),
        ("udp://[::1]:0", "port 0 cannot be connected to"),
        ("*", r"'\*': \* is only for listening; write HOST:PORT"),
        ("tls://*:7", r"\* is only for listening"),
        ("fd://3", "'fd://3': fd:// is only for listening"),
        ("ftp://localhost:21", "scheme 'ftp'"),
    ],
)
def test_endpoints_that_cannot_be_targets(text: str, hint: str) -> None:
    with pytest.raises(InvalidValueError, match=hint):
        parse_target(text)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("[::1]", "::1"),
        ("::1", "::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("echo.test", "echo.test"),
    ],
)
def test_a_host_may_be_written_as_in_a_target(text: str, host: str) -> None:
    assert parse_host(text) == host


@pytest.mark.parametrize(
    "text", ["", "[]", "[::1", "::1]", "[[::1]]", "[echo.test]", "a:443", "a b"]
)
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(InvalidValueError, match="is not a host name or address"):
        parse_host(text)
