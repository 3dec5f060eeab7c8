"""The hub engine over TLS: handshakes, records, and the ways in which a stream ends."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import psutil
import pytest

from support.certificates import Certificates
from support.openssl import OpenSslPeer
from support.processes import DEADLINE, LOAD, StartServer, environment, loaded, reset, until
from support.tls_in_memory import TlsInMemory

ALONE = ("-c", "1", "-n", "1", "--no-reconnect", "--timeout", "30s")
ONE = (*ALONE, "--connect-timeout", "30s")
TWO = ("-c", "1", "-n", "2", "--no-reconnect", "--timeout", "30s", "--connect-timeout", "30s")
engines = pytest.mark.parametrize("engine", ["hub", "threads"])


@contextmanager
def peer(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """Serve connections in a thread, one after the other, and close them when the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as connections:

        def accept() -> None:
            # Shutting the listener down ends it.
            with suppress(OSError):
                while True:
                    accepted, _ = listener.accept()
                    connections.enter_context(accepted)
                    accepted.settimeout(DEADLINE)
                    with suppress(OSError):
                        serve(accepted)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"tls://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(DEADLINE)


def say_nothing(_accepted: socket.socket) -> None:
    """Serve a connection by doing nothing."""


def speak(certificates: Certificates, accepted: socket.socket) -> tuple[ssl.SSLSocket, bytes]:
    """Shake hands as the server, and receive a message."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.cert, certificates.key)
    secured = context.wrap_socket(accepted.dup(), server_side=True)
    secured.settimeout(DEADLINE)
    return secured, secured.recv(64)


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape",
    [
        ("-n", "4000"),
        ("-n", "20000", "--pipeline", "64"),
        ("-n", "40", "--payload-size", "300000"),
        ("-n", "8", "--payload-size", "16MiB"),
        ("-n", "400", "--payload-size", "1-40000", "--pipeline", "8"),
        ("-n", "400", "--churn", "10"),
        ("-n", "2000", "--rate", "4k", "--pipeline", "16"),
    ],
    ids=" ".join,
)
def test_every_message_comes_back(
    start_server: StartServer, certificates: Certificates, shape: tuple[str, ...]
) -> None:
    server = start_server(
        *("--listen", "tls://127.0.0.1:0", "--admin", "127.0.0.1:0"), *certificates.options
    )
    code, result = loaded(
        *("run", server.url, "--tls-ca", str(certificates.authority), "-c", "4", *shape),
        *("--reconcile", server.admin),
    )
    assert code == 0
    assert result.totals.messages == int(shape[1])
    assert result.totals.bytes_received == result.totals.bytes_sent > 0
    assert result.latency_us.handshake.count == result.totals.connections_opened
    assert result.reconciliation is not None
    assert result.reconciliation.balanced


def test_a_peer_that_never_answers_the_handshake() -> None:
    with peer(say_nothing) as url:
        _, result = loaded("run", url, "--tls-insecure", *ALONE, "--connect-timeout", "300ms")
    assert result.totals.errors == {"handshake": 1}
    assert result.totals.connections_failed == 1


def test_a_peer_that_does_not_speak_tls() -> None:
    with peer(lambda accepted: accepted.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as url:
        _, result = loaded("run", url, "--tls-insecure", *ONE)
    assert result.totals.errors == {"handshake": 1}


def test_a_certificate_that_is_not_trusted(
    start_server: StartServer, certificates: Certificates
) -> None:
    server = start_server("--listen", "tls://127.0.0.1:0", *certificates.options)
    _, result = loaded("run", server.url, *ONE)
    assert result.totals.errors == {"handshake": 1}


@engines
def test_a_server_name_outside_ascii(certificates: Certificates, engine: str) -> None:
    names: list[str | None] = []

    def serve(accepted: socket.socket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates.cert, certificates.key)
        context.sni_callback = lambda _tls, name, _context: names.append(name)
        with context.wrap_socket(accepted.dup(), server_side=True) as secured:
            secured.sendall(secured.recv(64))

    with peer(serve) as url:
        _, result = loaded(
            *("run", url, *ONE, "--engine", engine),
            *("--tls-insecure", "--tls-server-name", "b\u00fccher.example"),
        )
    assert (result.totals.errors, names) == ({}, ["xn--bcher-kva.example"])


def test_surplus_in_the_record_of_a_reply(certificates: Certificates) -> None:
    """The surplus is in OpenSSL's buffer, where epoll does not see it."""

    def serve(accepted: socket.socket) -> None:
        secured, message = speak(certificates, accepted)
        secured.sendall(message + b"surplus")
        with secured, suppress(TimeoutError):
            secured.recv(1)

    with peer(serve) as url:
        _, result = loaded("run", url, "--tls-insecure", *ONE)
    assert result.totals.errors == {"foreign": 1}


@pytest.mark.parametrize(("replied", "kind"), [(0, "closed"), (10, "truncated")])
def test_close_notify_from_a_peer_that_keeps_its_socket(
    certificates: Certificates, replied: int, kind: str
) -> None:
    def serve(accepted: socket.socket) -> None:
        secured, message = speak(certificates, accepted)
        secured.send(message[:replied])
        with secured, suppress(OSError):
            secured.unwrap()

    with peer(serve) as url:
        _, result = loaded("run", url, "--tls-insecure", *ONE)
    assert result.totals.errors == {kind: 1}


def broken(record: bytes) -> bytes:
    """Return a record whose last byte, of its authentication tag, is wrong."""
    return record[:-1] + bytes([record[-1] ^ 1])


@engines
def test_a_reply_before_a_reset_counts(certificates: Certificates, engine: str) -> None:
    def serve(accepted: socket.socket) -> None:
        tls = TlsInMemory(accepted, certificates)
        accepted.sendall(tls.encrypted(tls.receive_exactly(64)))
        reset(accepted)

    with peer(serve) as url:
        _, result = loaded("run", url, "--tls-insecure", *TWO, "--engine", engine)
    assert (result.totals.errors, result.totals.messages) == ({"reset": 1}, 1)
    assert result.totals.bytes_received == 64


@engines
@pytest.mark.parametrize("size", [64, 40_000])
@pytest.mark.parametrize("pipeline", ["1", "4"])
def test_a_reply_before_a_broken_record_counts(
    certificates: Certificates, engine: str, size: int, pipeline: str
) -> None:
    """The client receives both at once."""

    def serve(accepted: socket.socket) -> None:
        tls = TlsInMemory(accepted, certificates)
        reply = tls.encrypted(tls.receive_exactly(size))
        accepted.sendall(reply + broken(tls.encrypted(b"surplus")))

    with peer(serve) as url:
        _, result = loaded(
            *("run", url, "--tls-insecure", *TWO, "--engine", engine, "--pipeline", pipeline),
            *("--payload-size", str(size)),
        )
    assert (result.totals.errors, result.totals.messages) == ({"broken": 1}, 1)
    assert result.totals.bytes_received == size


@engines
@pytest.mark.parametrize("notify", [True, False])
def test_a_part_of_a_large_reply_before_the_end(
    certificates: Certificates, engine: str, notify: bool
) -> None:
    def serve(accepted: socket.socket) -> None:
        tls = TlsInMemory(accepted, certificates)
        part = tls.encrypted(tls.receive_exactly(40_000)[:20_000])
        accepted.sendall(part + (tls.close_notify() if notify else b""))
        if not notify:
            accepted.shutdown(socket.SHUT_WR)

    with peer(serve) as url:
        _, result = loaded(
            *("run", url, "--tls-insecure", *ONE, "--engine", engine, "--payload-size", "40000")
        )
    assert result.totals.errors == {"truncated": 1}
    assert result.totals.bytes_received == 20_000


@pytest.mark.slow
def test_a_peer_that_never_reads_responses_to_key_updates(certificates: Certificates) -> None:
    """Receiving waits until they can be sent, and the next request is there to be received."""
    files = certificates.cert.with_name("both.pem")
    files.write_bytes(certificates.key.read_bytes() + certificates.cert.read_bytes())
    stuck = threading.Event()

    def serve(accepted: socket.socket) -> None:
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        never_reads = OpenSslPeer(accepted, str(files))
        while never_reads.request_key_updates():
            pass
        stuck.set()

    with peer(serve) as url:
        test = subprocess.Popen(
            [*LOAD, "run", url, "--tls-insecure", "-c", "1", "-n", "1", "--timeout", "1m"],
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            assert stuck.wait(DEADLINE)
            generators = psutil.Process(test.pid).children(recursive=True)
            before = [generator.cpu_times() for generator in generators]
            begin = time.monotonic()
            until(lambda: time.monotonic() - begin > 2, "two seconds")
            after = [generator.cpu_times() for generator in generators]
        finally:
            test.kill()
            test.wait()
    taken = sum(map(sum, after)) - sum(map(sum, before))
    # Who spins takes nearly all of it.
    assert taken < 0.8


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions_are_resumed(certificates: Certificates, version: ssl.TLSVersion) -> None:
    """The server's own count says so, and without the option there are none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.cert, certificates.key)
    context.maximum_version = version
    reused: list[bool] = []

    def serve(accepted: socket.socket) -> None:
        with context.wrap_socket(accepted.dup(), server_side=True) as secured:
            secured.settimeout(DEADLINE)
            reused.append(bool(secured.session_reused))
            with suppress(OSError):
                while data := secured.recv(1024):
                    secured.sendall(data)

    with peer(serve) as url:
        options = ("-c", "1", "-n", "10", "--churn", "1", "--tls-insecure")
        _, fresh = loaded("run", url, *options)
        code, result = loaded("run", url, *options, "--tls-resume")
    assert (code, fresh.totals.handshakes_resumed) == (0, None)
    assert reused == [False] * 11 + [True] * 9
    assert result.totals.handshakes_resumed == 9
