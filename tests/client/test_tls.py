"""The client over TLS: trust, handshakes that fail, and streams to the byte."""

from __future__ import annotations

import os
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from echo_client.connection import Address, EchoConnection, resolve
from echo_client.errors import (
    ClosedError,
    HandshakeError,
    LostError,
    ReplyTimeoutError,
    ResetError,
)
from echo_client.tls import TlsOptions
from echo_core.endpoint import Endpoint
from echo_core.errors import ExitCode
from echo_core.tls_files import TlsFileError
from support.certificates import Certificates, make_certificates
from support.misbehaving import Service, closes, resets, silent
from support.openssl import OpenSslPeer
from support.processes import (
    CLIENT,
    DEADLINE,
    EchoServerProcess,
    StartServer,
    receive_to_end,
    run,
)

LISTEN = ("--listen", "tls://127.0.0.1:0", "--log-level", "debug")


@pytest.fixture
def server(start_server: StartServer, certificates: Certificates) -> EchoServerProcess:
    return start_server(*LISTEN, *certificates.options, "--admin", "127.0.0.1:0")


@pytest.fixture
def trusting(certificates: Certificates) -> TlsOptions:
    return TlsOptions(ca=str(certificates.authority))


def connected(
    server: EchoServerProcess, options: TlsOptions, timeout: float = DEADLINE
) -> EchoConnection:
    return EchoConnection.open(Endpoint.parse(server.url), timeout=timeout, tls=options)


def failure(target: str, options: TlsOptions, connect_timeout: float = DEADLINE) -> str:
    endpoint = Endpoint.parse(f"tls://{target.removeprefix('tls://')}")
    with pytest.raises(HandshakeError, match="TLS handshake failed: ") as caught:
        EchoConnection.open(endpoint, tls=options, connect_timeout=connect_timeout)
    assert caught.value.kind == "handshake"
    said = str(caught.value)
    assert "\n" not in said
    return said.partition("TLS handshake failed: ")[2]


@pytest.mark.slow
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("size", [1, 7, 16 * 1024, 16 * 1024 + 1, 8 << 20])
def test_round_trips_of_every_size(
    server: EchoServerProcess, trusting: TlsOptions, size: int, version: ssl.TLSVersion
) -> None:
    context = trusting.context()
    context.maximum_version = version
    message = os.urandom(size)
    with EchoConnection.connect(
        resolve(Endpoint.parse(server.url)), timeout=DEADLINE, connect_timeout=DEADLINE, tls=context
    ) as connection:
        for _ in range(3):
            assert connection.round_trip(message) == message
        assert connection.bytes_sent == connection.bytes_received == 3 * size
        assert connection.connect_ns > 0
        assert connection.handshake_ns > 0
        assert connection.family == socket.AF_INET
        info = connection.tcp_info()
        assert info is not None
        assert info.round_trip_us > 0
    server.wait_for_metric("connections_closed_total", 1, reason="end_of_stream")


def test_certificate_verification(
    server: EchoServerProcess, trusting: TlsOptions, tmp_path: Path, certificates: Certificates
) -> None:
    strangers = make_certificates(tmp_path / "strangers")
    by_name = server.url.replace("127.0.0.1", "localhost")
    with EchoConnection.open(Endpoint.parse(by_name), tls=trusting) as connection:
        assert connection.round_trip(b"hello") == b"hello"
    for options in (TlsOptions(), TlsOptions(ca=str(strangers.authority))):
        assert failure(server.url, options).startswith("certificate verify failed: unable to get ")
    elsewhere = TlsOptions(ca=str(certificates.authority), server_name="example.org")
    assert "certificate is not valid for 'example.org'" in failure(server.url, elsewhere)
    with connected(server, TlsOptions(insecure=True)) as connection:
        assert connection.round_trip(b"hello") == b"hello"


def test_the_name_to_verify_is_the_host_of_the_address(
    server: EchoServerProcess, trusting: TlsOptions
) -> None:
    (address,) = resolve(Endpoint.parse(server.url))
    assert (address.transport, address.host, str(address.endpoint)) == (
        "tls",
        "127.0.0.1",
        server.url,
    )
    nameless = Address(address.family, address.sockaddr, "tls")
    with pytest.raises(HandshakeError, match="no server name is given"):
        EchoConnection.connect(
            [nameless], timeout=1, connect_timeout=DEADLINE, tls=trusting.context()
        )
    EchoConnection.connect(
        [nameless],
        timeout=1,
        connect_timeout=DEADLINE,
        tls=trusting.context(),
        server_name="localhost",
    ).close()


def until_refused(connection: EchoConnection) -> None:
    """Send without reading, which breaks once the other end has closed."""
    while True:
        connection.send(b"hello")


def test_client_certificates(
    start_server: StartServer, certificates: Certificates, tmp_path: Path, trusting: TlsOptions
) -> None:
    server = start_server(
        *LISTEN, *certificates.options, "--tls-client-ca", str(certificates.authority)
    )
    known = TlsOptions(ca=str(certificates.authority), cert=str(certificates.client))
    with connected(server, known) as connection:
        assert connection.round_trip(b"hello") == b"hello"
    # In TLS 1.3 a client learns it after its handshake: with its first read, or as it sends more.
    for message in (b"hello", b"hello" * 100_000):
        with (
            pytest.raises(HandshakeError, match="sent the alert 'certificate required'"),
            connected(server, trusting) as connection,
        ):
            connection.round_trip(message)
    with (
        pytest.raises(HandshakeError, match="sent the alert 'certificate required'"),
        connected(server, trusting) as connection,
    ):
        until_refused(connection)
    stranger = make_certificates(tmp_path / "strangers").client
    unknown = TlsOptions(ca=str(certificates.authority), cert=str(stranger))
    refused = pytest.raises(HandshakeError, match="sent the alert 'unknown ca'")
    with refused, connected(server, unknown) as connection:
        connection.round_trip(b"hello")


def says(greeting: bytes) -> Callable[[socket.socket, threading.Event], None]:
    def behave(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(greeting)
        silent(connection, over)

    return behave


def mirrors(connection: socket.socket, _over: threading.Event) -> None:
    while data := connection.recv(65536):
        connection.sendall(data)


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (mirrors, "the server does not speak TLS"),
        (says(b"SSH-2.0-OpenSSH_9.9\r\n"), "the server does not speak TLS"),
        (says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "the server does not speak TLS"),
        (says(b"\x15\x03\x01\x00\x02\x02\x28"), "the server sent the alert 'handshake failure'"),
        (closes, "the server closed the connection"),
        (resets, "Connection reset by peer"),
        (silent, "timed out"),
    ],
)
def test_a_server_without_tls(
    behaviour: Callable[[socket.socket, threading.Event], None], said: str
) -> None:
    limit = 0.1 if behaviour is silent else DEADLINE
    with Service(behaviour) as service:
        assert said in failure(service.target, TlsOptions(), connect_timeout=limit)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("delay=1m", ReplyTimeoutError),
        ("close", ClosedError),
        ("truncate", ClosedError),
        ("reset", ResetError),
    ],
)
def test_errors_have_the_same_classes_as_without_tls(
    start_server: StartServer,
    certificates: Certificates,
    trusting: TlsOptions,
    fault: str,
    expected: type[Exception],
) -> None:
    server = start_server(*LISTEN, *certificates.options, "--fault", fault)
    timeout = 0.3 if expected is ReplyTimeoutError else DEADLINE
    with connected(server, trusting, timeout) as connection, pytest.raises(expected):
        connection.round_trip(b"hello")
    # Whoever closes before everything was read resets.
    with (
        connected(server, trusting, timeout) as connection,
        pytest.raises((expected, ResetError)),
    ):
        connection.round_trip(bytes(1_000_000))


@contextmanager
def tls_service(
    certificates: Certificates, serve: Callable[[ssl.SSLSocket], None]
) -> Iterator[Endpoint]:
    """One TLS connection, served by a function in a thread."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.cert, certificates.key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            plain, _ = listener.accept()
            with context.wrap_socket(plain, server_side=True) as connection:
                serve(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        yield Endpoint.parse(f"tls://127.0.0.1:{listener.getsockname()[1]}")
        thread.join(DEADLINE)
        assert not thread.is_alive()


def test_data_is_received_after_the_end_of_sending(
    certificates: Certificates, trusting: TlsOptions
) -> None:
    def answer_at_the_end(connection: ssl.SSLSocket) -> None:
        connection.sendall(receive_to_end(connection)[::-1])
        connection.unwrap().close()

    sent = os.urandom(200_000)
    received = bytearray()
    with (
        tls_service(certificates, answer_at_the_end) as endpoint,
        EchoConnection.open(endpoint, timeout=DEADLINE, tls=trusting) as connection,
    ):
        connection.send(sent)
        connection.end_of_sending()
        while piece := connection.receive():
            received += piece
        assert connection.receive() == b""
    assert bytes(received) == sent[::-1]


def test_a_server_that_speaks_first_and_in_fragments(
    certificates: Certificates, trusting: TlsOptions
) -> None:
    def greet(connection: ssl.SSLSocket) -> None:
        for byte in b"welcome":
            connection.sendall(bytes([byte]))
        assert connection.recv(100) == b"thanks"

    with (
        tls_service(certificates, greet) as endpoint,
        EchoConnection.open(endpoint, timeout=DEADLINE, tls=trusting) as connection,
    ):
        assert connection.round_trip(b"thanks")[:1] == b"w"


def test_a_server_that_requests_key_updates_without_end(
    certificates: Certificates, trusting: TlsOptions, tmp_path: Path
) -> None:
    """Its answers to them wait for the client to send, and must not fill its memory."""
    both = tmp_path / "both.pem"
    both.write_bytes(certificates.cert.read_bytes() + certificates.key.read_bytes())
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def ask() -> None:
            connection, _ = listener.accept()
            with closing(OpenSslPeer(connection, str(both))) as peer:
                peer.request_key_updates()

        asking = threading.Thread(target=ask)
        asking.start()
        endpoint = Endpoint.parse(f"tls://localhost:{listener.getsockname()[1]}")
        with (
            EchoConnection.open(endpoint, timeout=DEADLINE, tls=trusting) as connection,
            pytest.raises(LostError, match="sends too many key updates"),
        ):
            connection.receive()
        asking.join(DEADLINE)
        assert not asking.is_alive()


def test_an_incomplete_record_does_not_extend_the_timeout(
    server: EchoServerProcess, trusting: TlsOptions
) -> None:
    """A proxy lets the handshake through, and then single bytes of the reply."""
    upstream = ("127.0.0.1", server.port)

    def throttle(connection: socket.socket, over: threading.Event) -> None:
        with socket.create_connection(upstream) as behind:

            def forward() -> None:
                # Either end may leave first, once the client has seen enough.
                with suppress(OSError):
                    while data := connection.recv(65536):
                        behind.sendall(data)
                    behind.shutdown(socket.SHUT_RDWR)

            forwarding = threading.Thread(target=forward)
            forwarding.start()
            try:
                # The server's side of the handshake comes before its tickets and the reply.
                connection.sendall(behind.recv(65536))
                while data := behind.recv(1):
                    connection.sendall(data)
                    over.wait(0.02)
            finally:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                forwarding.join(DEADLINE)

    with (
        Service(throttle) as service,
        EchoConnection.open(
            Endpoint.parse(f"tls://{service.target}"), timeout=0.2, tls=trusting
        ) as connection,
        pytest.raises(ReplyTimeoutError, match="0 of 500 bytes came back within 200ms"),
    ):
        connection.round_trip(bytes(500))


def test_unusable_certificate_files(certificates: Certificates, tmp_path: Path) -> None:
    def refused(**options: Path | str) -> str:
        with pytest.raises(TlsFileError) as caught:
            TlsOptions(**{name: str(path) for name, path in options.items()}).context()  # type: ignore[arg-type]
        assert caught.value.exit_code == ExitCode.USAGE
        return str(caught.value)

    cert, key, client = certificates.cert, certificates.key, certificates.client
    other = make_certificates(tmp_path / "other").key
    missing = tmp_path / "missing.pem"
    text = tmp_path / "notes.txt"
    text.write_text("not a certificate")
    encrypted = tmp_path / "encrypted.key"
    encrypted.write_bytes(
        load_pem_private_key(key.read_bytes(), None).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"a passphrase")
        )
    )
    assert refused(ca=missing) == f"--tls-ca: {missing}: No such file or directory"
    assert refused(ca=text) == f"--tls-ca: {text} contains no PEM certificate"
    assert refused(cert=missing) == f"--tls-cert: {missing}: No such file or directory"
    assert refused(cert=text) == f"--tls-cert: {text} contains no PEM certificate"
    assert refused(cert=cert) == f"--tls-cert: {cert} contains no PEM private key"
    assert refused(cert=cert, key=missing) == f"--tls-key: {missing}: No such file or directory"
    assert refused(cert=cert, key=text) == f"--tls-key: {text} contains no PEM private key"
    assert refused(cert=cert, key=other) == f"--tls-key: {other} is not the private key of {cert}"
    assert refused(cert=cert, key=encrypted).startswith(f"--tls-key: {encrypted} is encrypted; ")
    assert refused(key=client) == f"--tls-key: {client} needs --tls-cert FILE"


GREENLETS = """
import sys
from echo_client.connection import EchoConnection
from echo_client.errors import ReplyTimeoutError
from echo_client.tls import TlsOptions
from echo_core.endpoint import Endpoint
assert "ssl" not in sys.modules, "imported before it could be patched"
from gevent import monkey
monkey.patch_all()
import gevent
endpoint, options = Endpoint.parse(sys.argv[1]), TlsOptions(ca=sys.argv[2])
size, timeout = int(sys.argv[3]), float(sys.argv[4])
ticks = 0
def tick():
    global ticks
    while True:
        gevent.sleep(0.001)
        ticks += 1
def trip(number):
    message = bytes([number]) * size
    with EchoConnection.open(endpoint, timeout=timeout, connect_timeout=60, tls=options) as it:
        try:
            return all(it.round_trip(message) == message for _ in range(3))
        except ReplyTimeoutError:
            return None
ticking = gevent.spawn(tick)
jobs = [gevent.spawn(trip, number) for number in range(50)]
gevent.joinall(jobs, raise_error=True)
assert ticks, "nobody else ran"
values = [job.value for job in jobs]
print(values.count(True), values.count(None))
"""


@pytest.mark.slow
def test_fifty_greenlets(
    start_server: StartServer,
    server: EchoServerProcess,
    certificates: Certificates,
) -> None:
    def greenlets(url: str, size: int, timeout: float) -> list[bytes]:
        result = run(
            [
                *(sys.executable, "-W", "error", "-c", GREENLETS),
                *(url, str(certificates.authority), str(size), str(timeout)),
            ]
        )
        assert result.stderr == b""
        return result.stdout.split()

    assert greenlets(server.url, 64, DEADLINE) == [b"50", b"0"]
    assert greenlets(server.url, 500_000, DEADLINE) == [b"50", b"0"]
    late = start_server(*LISTEN, *certificates.options, "--fault", "delay=1m")
    assert greenlets(late.url, 64, 0.2) == [b"0", b"50"]
    assert greenlets(late.url, 500_000, 0.2) == [b"0", b"50"]


def test_a_pipe_of_64_mebibytes(server: EchoServerProcess, certificates: Certificates) -> None:
    """A thread sends while another receives, on one connection."""
    sent = b"".join(bytes([number]) + os.urandom((1 << 20) - 1) for number in range(64))
    result = run([*CLIENT, server.url, "--tls-ca", str(certificates.authority)], stdin=sent)
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout == sent


def test_the_options_of_the_command(
    start_server: StartServer, server: EchoServerProcess, certificates: Certificates
) -> None:
    strict = start_server(
        *LISTEN, *certificates.options, "--tls-client-ca", str(certificates.authority)
    )
    authority = ("--tls-ca", str(certificates.authority))
    for arguments in (
        (server.url, *authority),
        (server.url, "--tls-insecure"),
        (server.url, *authority, "--tls-server-name", "localhost"),
        (strict.url, *authority, "--tls-cert", str(certificates.client)),
    ):
        result = run([*CLIENT, *arguments], stdin=b"hi")
        assert (result.returncode, result.stdout, result.stderr) == (0, b"hi", b""), arguments


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["tls://127.0.0.1:1", "--tls-ca", "/nope"], 2, "--tls-ca: /nope: No such file or"),
        (["tls://127.0.0.1:1", "--tls-server-name", "."], 2, "--tls-server-name: '.' is not a"),
        (
            ["tcp://127.0.0.1:1", "--tls-ca", "/nope"],
            2,
            "--tls-ca applies only to tls:// targets, not to",
        ),
        (
            ["127.0.0.1:1", "--tls-insecure"],
            2,
            "--tls-insecure applies only to tls:// targets, not to",
        ),
        (
            ["udp://127.0.0.1:1", "--tls-key", "x"],
            2,
            "--tls-key applies only to tls:// targets, not to",
        ),
    ],
)
def test_bad_input(arguments: list[str], code: int, said: str) -> None:
    result = run([*CLIENT, *arguments], stdin=b"hi")
    (line,) = result.stderr.decode().splitlines()
    assert (result.returncode, result.stdout) == (code, b"")
    assert said in line
