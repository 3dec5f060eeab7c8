"""Failures have the same name in all engines."""

from __future__ import annotations

import errno
import os
import socket
import threading
from pathlib import Path

import pytest

from echo_client.errors import lost
from echo_load.engines.hub.exchange import _failure
from support.certificates import make_certificates
from support.processes import DEADLINE, StartServer, loaded

ENGINES = ("hub", "threads", "greenlets")
QUICK = ("-c", "2", "-n", "2", "--no-reconnect", "--connect-timeout", "300ms")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_a_unix_socket_that_is_not_there(tmp_path: Path, engine: str) -> None:
    _, result = loaded("run", f"unix://{tmp_path}/missing", "--engine", engine, *QUICK)
    assert result.totals.errors == {"refused": 2}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_unix_socket_that_nobody_listens_on(tmp_path: Path, engine: str) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(f"{tmp_path}/bound")
        _, result = loaded("run", f"unix://{tmp_path}/bound", "--engine", engine, *QUICK)
    assert result.totals.errors == {"refused": 2}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_unix_socket_whose_queue_stays_full(tmp_path: Path, engine: str) -> None:
    path = f"{tmp_path}/full"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(path)
        listener.listen(0)
        first.connect(path)
        _, result = loaded("run", f"unix://{path}", "--engine", engine, *QUICK)
    assert result.totals.errors == {"connect_timeout": 2}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("target", ["255.255.255.255:9", "[ff02::1]:9"])
def test_an_address_that_the_kernel_connects_nobody_to(target: str, engine: str) -> None:
    _, result = loaded("run", target, "--engine", engine, *QUICK)
    assert result.totals.errors == {"unreachable": 2}


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ECONNRESET, "reset"),
        (errno.EPIPE, "reset"),
        (errno.ECONNREFUSED, "refused"),
        (errno.EHOSTUNREACH, "unreachable"),
        (errno.ENETUNREACH, "unreachable"),
        (errno.ETIMEDOUT, "broken"),
        (errno.EPROTO, "broken"),
    ],
)
def test_an_open_connection_that_breaks(number: int, kind: str) -> None:
    error = OSError(number, os.strerror(number))
    assert (lost(error).kind, _failure(error).kind) == (kind, kind)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_client_certificate_that_is_missing(
    start_server: StartServer, tmp_path: Path, engine: str
) -> None:
    certificates = make_certificates(tmp_path)
    authority = str(certificates.authority)
    server = start_server(
        *("--listen", "tls://127.0.0.1:0", *certificates.options, "--tls-client-ca", authority)
    )
    code, result = loaded(
        *("run", server.url, "--engine", engine, "-c", "20", "-n", "20", "--no-reconnect"),
        *("--tls-ca", authority),
    )
    assert (code, result.totals.errors) == (1, {"handshake": 20})


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_a_connection_that_opens_after_its_stage_sends_nothing(tmp_path: Path, engine: str) -> None:
    """The backlog of the target has no space until the stage is over."""
    path = f"{tmp_path}/echo"
    late: list[bytes] = []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(0)

    def serve() -> None:
        first, _ = listener.accept()
        with socket.socket(socket.AF_UNIX) as filler, first:
            filler.connect(path)
            while data := first.recv(65536):
                first.sendall(data)
            # The stages of all connections are over.
            listener.accept()[0].close()
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(DEADLINE)
            late.append(connection.recv(65536))

    with listener:
        thread = threading.Thread(target=serve)
        thread.start()
        loaded(
            *("run", f"unix://{path}", "--engine", engine, "--stages", "1/1s,2/400ms,0/2s"),
            *("--pipeline", "4"),
        )
        thread.join(DEADLINE)
    assert late == [b""]
