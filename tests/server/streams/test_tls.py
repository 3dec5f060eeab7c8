"""Echoes over TLS, and handshakes that do not get so far."""

from __future__ import annotations

import os
import select
import signal
import socket
import ssl
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from support.certificates import Certificates, make_certificates
from support.processes import (
    DEADLINE,
    SERVER,
    EchoServerProcess,
    StartServer,
    echoes,
    one_error,
    receive_exactly,
    receive_to_end,
    reset,
    run,
    until,
)

LISTEN = ("--listen", "tls://127.0.0.1:0", "--admin", "127.0.0.1:0", "--log-level", "debug")


@pytest.fixture
def server(start_server: StartServer, certificates: Certificates) -> EchoServerProcess:
    return start_server(*LISTEN, *certificates.options)


def connect(server: EchoServerProcess, context: ssl.SSLContext) -> ssl.SSLSocket:
    return context.wrap_socket(server.connect(), server_hostname="localhost")


def exchange(connection: ssl.SSLSocket, sent: bytes) -> bytes:
    """Send and receive at once, in one thread: OpenSSL wants it so."""
    connection.setblocking(False)
    poll = select.poll()
    poll.register(connection, select.POLLIN | select.POLLOUT)
    received = bytearray()
    waiting = memoryview(sent)
    while len(received) < len(sent):
        with suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
            waiting = waiting[connection.send(waiting) :] if waiting else waiting
        with suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
            piece = connection.recv(65536)
            assert piece, "the stream ended"
            received += piece
        if not waiting:
            poll.modify(connection, select.POLLIN)
        assert connection.pending() or len(received) == len(sent) or poll.poll(DEADLINE * 1000)
    connection.settimeout(DEADLINE)
    return bytes(received)


def closed(server: EchoServerProcess, reason: str) -> float:
    return server.metric("connections_closed_total", reason=reason)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_echoes_of_all_sizes(
    server: EchoServerProcess, certificates: Certificates, version: ssl.TLSVersion
) -> None:
    context = certificates.client_context()
    context.minimum_version = context.maximum_version = version
    assert server.url.startswith("tls://127.0.0.1:")
    with connect(server, context) as connection:
        for size in (1, 100, 16384, 16385, 65536, 1_000_000):
            sent = os.urandom(size)
            assert exchange(connection, sent) == sent
    until(lambda: closed(server, "end_of_stream") == 1, "the end")
    until(
        lambda: server.metric("received_bytes_total") == server.metric("sent_bytes_total"),
        "all to be counted as sent",
    )


def test_older_versions_are_refused(server: EchoServerProcess, certificates: Certificates) -> None:
    context = certificates.client_context()
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = ssl.TLSVersion.TLSv1_1
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        connect(server, context)
    until(lambda: closed(server, "tls_failed") == 1, "the failure to be counted")


def test_many_connections_at_once(server: EchoServerProcess, certificates: Certificates) -> None:
    context = certificates.client_context()
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(server, context)) for _ in range(100)]
        for number, connection in enumerate(connections):
            connection.sendall(b"hello %d" % number)
        for number, connection in enumerate(connections):
            message = b"hello %d" % number
            assert receive_exactly(connection, len(message)) == message


def test_a_close_notify_gets_everything_back_and_one_in_return(
    server: EchoServerProcess, certificates: Certificates
) -> None:
    sent = os.urandom(50_000)
    with connect(server, certificates.client_context()) as connection:
        connection.sendall(sent)
        assert receive_exactly(connection, len(sent)) == sent
        # Raises unless the server answers with its own.
        connection.unwrap().close()
    server.wait_for_metric("connections_closed_total", 1, reason="end_of_stream")


def test_a_connection_closed_without_close_notify(
    server: EchoServerProcess, certificates: Certificates
) -> None:
    with connect(server, certificates.client_context()) as connection:
        assert echoes(connection)
        with socket.socket(fileno=connection.detach()) as bare:
            bare.settimeout(DEADLINE)
            bare.shutdown(socket.SHUT_WR)
            receive_to_end(bare)
    server.wait_for_metric("connections_closed_total", 1, reason="end_of_stream")


def test_a_client_that_stops_reading_is_not_read_from(
    server: EchoServerProcess, certificates: Certificates
) -> None:
    context = certificates.client_context()
    with connect(server, context) as witness, connect(server, context) as stalled:
        assert echoes(witness)
        stalled.setblocking(False)
        sent = 0
        chunk = os.urandom(16384)
        for _ in range(100_000):
            try:
                sent += stalled.send(chunk)
            except ssl.SSLWantWriteError:
                break
        received = server.metric("received_bytes_total")
        assert received < 32 << 20
        assert echoes(witness)
        stalled.settimeout(DEADLINE)
        whole = len(chunk) * (sent // len(chunk))
        assert receive_exactly(stalled, whole) == chunk * (sent // len(chunk))


@pytest.mark.parametrize(
    "nonsense",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        pytest.param(b"\x16\x03\x01\x00", marks=pytest.mark.slow),
        os.urandom(300),
        b"\0" * 5000,
    ],
)
def test_a_client_without_tls_affects_only_its_own_connection(
    start_server: StartServer, certificates: Certificates, nonsense: bytes
) -> None:
    server = start_server(*LISTEN, *certificates.options, "--handshake-timeout", "3s")
    with connect(server, certificates.client_context()) as witness:
        with server.connect() as plain:
            plain.sendall(nonsense)
            # Perhaps an alert, perhaps a reset, never an echo.
            with suppress(ConnectionResetError):
                assert nonsense not in receive_to_end(plain)
        assert echoes(witness)
        failed = closed(server, "tls_failed") + closed(server, "handshake_timed_out")
        assert failed == 1
    # The log is written by a thread of its own, which may be late.
    until(lambda: "handshake failed" in server.log(), "a line in the log")
    assert server.log().count("handshake failed") == 1
    assert "Traceback" not in server.log()


@pytest.mark.slow
@pytest.mark.usefixtures("many_descriptors")
def test_a_thousand_slow_handshakes(start_server: StartServer, certificates: Certificates) -> None:
    """Half a handshake each, then nothing: they end at the deadline and hurt nobody."""
    server = start_server(*LISTEN, *certificates.options, "--handshake-timeout", "3s")
    context = certificates.client_context()
    with ExitStack() as stack:
        witness = stack.enter_context(connect(server, context))
        slow = [stack.enter_context(server.connect()) for _ in range(1000)]
        for connection in slow:
            connection.sendall(b"\x16\x03\x01\x02\x00\x01")
        assert echoes(witness)
        assert echoes(stack.enter_context(connect(server, context)))
        until(lambda: closed(server, "handshake_timed_out") == len(slow), "the deadline")
        assert all(connection.recv(1) == b"" for connection in slow)
        assert echoes(witness)
        server.wait_for_metric("connections_open", 2)


def test_mutual_tls(start_server: StartServer, certificates: Certificates, tmp_path: Path) -> None:
    server = start_server(
        *LISTEN, *certificates.options, "--tls-client-ca", str(certificates.authority)
    )
    with connect(server, certificates.client_context(with_certificate=True)) as connection:
        assert echoes(connection)
    strangers = make_certificates(tmp_path / "strangers")
    stranger = certificates.client_context()
    stranger.load_cert_chain(strangers.client)
    for context in (certificates.client_context(), stranger):
        # In TLS 1.3 a client learns it with its first read: an alert or a reset.
        with suppress(OSError), connect(server, context) as refused:
            assert not echoes(refused)
    until(lambda: closed(server, "tls_failed") == 2, "both to be counted")
    with connect(server, certificates.client_context(with_certificate=True)) as connection:
        assert echoes(connection)


@pytest.mark.slow
def test_certificates_are_renewed_by_a_restart(
    start_server: StartServer, certificates: Certificates, tmp_path: Path
) -> None:
    server = start_server("--workers", "2", *LISTEN, *certificates.options)
    with connect(server, certificates.client_context()) as connection:
        assert echoes(connection)
    renewed = make_certificates(tmp_path / "renewed")
    certificates.cert.write_bytes(renewed.cert.read_bytes())
    certificates.key.write_bytes(renewed.key.read_bytes())
    server.signal(signal.SIGHUP)
    server.wait_for_log("workers restarted")
    for _ in range(10):
        with connect(server, renewed.client_context()) as connection:
            assert echoes(connection)


@pytest.mark.slow
def test_resets_and_limits(start_server: StartServer, certificates: Certificates) -> None:
    server = start_server(
        *LISTEN, *certificates.options, "--max-connections", "3", "--rate-limit", "20kB",
        "--idle-timeout", "1h",
    )  # fmt: skip
    context = certificates.client_context()
    with connect(server, context) as witness:
        sent = os.urandom(30_000)
        witness.sendall(sent)
        assert receive_exactly(witness, len(sent)) == sent
        for _ in range(10):
            broken = connect(server, context)
            broken.sendall(b"x" * 1000)
            reset(broken)
            until(lambda: server.metric("connections_open") == 1, "its end")
    assert "Traceback" not in server.log()


@pytest.mark.slow
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("options", [(), ("--fault", "corrupt@0%")])
def test_resets_are_counted_as_resets(
    start_server: StartServer,
    certificates: Certificates,
    options: tuple[str, ...],
    version: ssl.TLSVersion,
) -> None:
    server = start_server(*LISTEN, *certificates.options, *options)
    context = certificates.client_context()
    context.minimum_version = context.maximum_version = version
    while_idle = connect(server, context)
    assert echoes(while_idle)
    reset(while_idle)
    server.wait_for_metric("connections_closed_total", 1, reason="reset")
    while_sending = connect(server, context)
    while_sending.setblocking(False)
    with suppress(ssl.SSLWantWriteError):
        while True:
            while_sending.send(bytes(16384))
    reset(while_sending)
    server.wait_for_metric("connections_closed_total", 2, reason="reset")
    in_handshake = server.connect()
    in_handshake.sendall(b"\x16\x03\x01")
    server.wait_for_metric("connections_accepted_total", 3)
    reset(in_handshake)
    server.wait_for_metric("connections_closed_total", 3, reason="reset")
    with connect(server, context) as orderly:
        assert echoes(orderly)
        orderly.unwrap().close()
    with connect(server, context) as without_notify:
        assert echoes(without_notify)
    server.wait_for_metric("connections_closed_total", 2, reason="end_of_stream")
    server.wait_for_metric("connections_closed_total", 5)


@pytest.mark.slow
def test_a_reset_of_a_connection_that_is_held(
    start_server: StartServer, certificates: Certificates
) -> None:
    """A held connection is watched for no event, and ends nevertheless."""
    server = start_server(*LISTEN, *certificates.options, "--rate-limit", "1000")
    broken = connect(server, certificates.client_context())
    broken.sendall(bytes(10_000))
    receive_exactly(broken, 1)
    reset(broken)
    until(lambda: server.metric("connections_open") == 0, "its end")
    server.wait_for_metric("connections_closed_total", 1, reason="reset")


@pytest.mark.slow
def test_the_counters_during_handshakes(
    start_server: StartServer, certificates: Certificates
) -> None:
    server = start_server("--workers", "2", *LISTEN, *certificates.options)
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(server.connect())
        until(lambda: server.metric("connections_open") == 4, "all to be accepted")
        server.wait_for_metric("connections_accepted_total", 4)
        for pid in server.workers():
            os.kill(pid, signal.SIGKILL)
        until(lambda: closed(server, "worker_died") == 4, "the deaths to be counted")
        server.wait_for_metric("connections_accepted_total", 4)


@pytest.mark.slow
def test_the_counters_after_a_drain_that_times_out(
    start_server: StartServer, certificates: Certificates
) -> None:
    """Handshakes that were cut before they had begun are counted too."""
    server = start_server(
        *("--listen", "tls://127.0.0.1:0", *certificates.options),
        *("--drain-timeout", "0", "--log-level", "debug"),
    )
    server.signal(signal.SIGSTOP)
    with ExitStack() as stack:
        silent = [stack.enter_context(server.connect()) for _ in range(300)]
        server.signal(signal.SIGTERM)
        server.signal(signal.SIGCONT)
        for connection in silent:
            with suppress(ConnectionResetError):
                assert connection.recv(1) == b""
    assert server.wait() == 0
    assert server.log().count('"reason": "server_stopped"') == 300


def test_a_drain_waits_for_handshakes(
    start_server: StartServer, certificates: Certificates
) -> None:
    server = start_server(*LISTEN, *certificates.options)
    plain = server.connect()
    until(lambda: server.metric("connections_open") == 1, "it to be accepted")
    server.signal(signal.SIGTERM)
    server.wait_for_log("draining")
    with certificates.client_context().wrap_socket(plain, server_hostname="localhost") as late:
        assert echoes(late)
    assert server.wait() == 0


def test_a_drain_of_handshakes_times_out(
    start_server: StartServer, certificates: Certificates
) -> None:
    server = start_server(*LISTEN, *certificates.options, "--drain-timeout", "100ms")
    with server.connect() as silent:
        until(lambda: server.metric("connections_open") == 1, "it to be accepted")
        server.signal(signal.SIGTERM)
        assert silent.recv(1) == b""
        assert server.wait() == 0


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_unusable_certificate_files(
    certificates: Certificates, tmp_path: Path, workers: str
) -> None:
    def refused(cert: object, key: object, ca: object = None) -> str:
        authorities = ("--tls-client-ca", str(ca)) if ca else ()
        code, line = one_error(
            *("--listen", "tls://localhost:0", "--workers", workers),
            *("--tls-cert", str(cert), "--tls-key", str(key), *authorities),
        )
        assert code == 2
        return line

    good_cert, good_key = certificates.cert, certificates.key
    other = make_certificates(tmp_path / "other")
    text = tmp_path / "notes.txt"
    text.write_text("not a certificate")
    missing = tmp_path / "missing.pem"
    encrypted = tmp_path / "encrypted.key"
    broken = tmp_path / "broken.key"
    broken.write_text("-----BEGIN PRIVATE KEY-----\nMIGb\n-----END PRIVATE KEY-----\n")
    key = load_pem_private_key(good_key.read_bytes(), None)
    locked = key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"a passphrase")
    )
    encrypted.write_bytes(locked)
    assert f"--tls-key: {other.key} is not the private key of {good_cert}" in refused(
        good_cert, other.key
    )
    assert f"--tls-cert: {missing}: No such file" in refused(missing, good_key)
    assert f"--tls-key: {missing}: No such file" in refused(good_cert, missing)
    assert f"--tls-cert: {text} contains no PEM certificate" in refused(text, good_key)
    assert f"--tls-key: {text} contains no PEM private key" in refused(good_cert, text)
    assert str(broken) in refused(good_cert, broken)
    assert f"--tls-key: {encrypted} is encrypted; use" in refused(good_cert, encrypted)
    assert f"--tls-client-ca: {text} contains no" in refused(good_cert, good_key, text)
    assert f"--tls-client-ca: {missing}: No such" in refused(good_cert, good_key, missing)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--listen", "tls://x"], "a tls:// listener needs --tls-cert FILE"),
        (["--listen", "tls://x", "--tls-cert", "x"], "a tls:// listener needs --tls-key FILE"),
        (["--tls-cert", "x"], "--tls-cert applies only to TLS; add --listen"),
        (["--tls-client-ca", "x"], "--tls-client-ca applies only to TLS; add --listen"),
        (["--handshake-timeout", "0"], "--handshake-timeout: '0' is not a duration above 0"),
    ],
)
def test_bad_input(arguments: list[str], said: str) -> None:
    result = run([*SERVER, *arguments])
    assert result.returncode == 2
    assert said in result.stderr.decode()
    assert len(result.stderr.decode().splitlines()) == 1
