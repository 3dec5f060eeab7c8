"""Addresses of sockets, as people write them."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo_core.endpoint import Endpoint, UnixEndpoint
from echo_core.socket_address import host_of, unix_path

INDEX, NAME = socket.if_nameindex()[0]


@pytest.mark.parametrize(
    ("sockaddr", "host"),
    [
        (("127.0.0.1", 7), "127.0.0.1"),
        (("::1", 7, 0, 0), "::1"),
        (("fe80::1", 7, 0, INDEX), f"fe80::1%{NAME}"),
        # What an operating system may have written itself.
        ((f"fe80::1%{NAME}", 7, 0, INDEX), f"fe80::1%{NAME}"),
        (("fe80::1", 7, 0, 2**31 - 1), f"fe80::1%{2**31 - 1}"),
    ],
)
def test_link_local_hosts_have_a_zone(sockaddr: tuple[Any, ...], host: str) -> None:
    assert host_of(sockaddr) == host


@given(st.text("@./ab\u00e9", min_size=1, max_size=30))
def test_the_name_of_a_bound_unix_socket_is_parsed_back(path: str) -> None:
    if path == "@":
        return
    endpoint = UnixEndpoint(path)
    if endpoint.is_abstract:
        assert endpoint.sockaddr == "\0" + path[1:]
        assert unix_path(os.fsencode(endpoint.sockaddr)) == path
    assert Endpoint.parse(f"unix://{unix_path(endpoint.sockaddr)}") == endpoint


def test_a_file_whose_name_begins_with_an_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("@echo")
        assert unix_path(bound.getsockname()) == "./@echo"
    assert Path(UnixEndpoint("./@echo").sockaddr).is_socket()


@pytest.mark.parametrize("name", ["", b"", b"\0a\0b", "a\0b"])
def test_names_that_cannot_be_written(name: str | bytes) -> None:
    with pytest.raises(ValueError, match="is not a valid unix socket name"):
        unix_path(name)
