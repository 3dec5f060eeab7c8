"""The server's listeners: address families, unix sockets, inherited descriptors."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from echo_core.endpoint import UnixEndpoint
from echo_server.config import ServerConfig
from echo_server.errors import ListenError
from echo_server.listeners import Listeners, open_listeners
from support.ports import free_port
from support.processes import (
    CLIENT,
    DEADLINE,
    LOAD,
    SERVER,
    EchoServerProcess,
    StartServer,
    echoes,
    environment,
    one_error,
    run,
)

workers = pytest.mark.parametrize("workers", ["1", "2"])
_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 24, 1, 2


def connect_unix(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(DEADLINE)
    connection.connect(str(path))
    return connection


@workers
def test_several_listeners(start_server: StartServer, tmp_path: Path, workers: str) -> None:
    path = tmp_path / "echo.sock"
    server = start_server(
        "--workers", workers, "--listen", "tcp://127.0.0.1:0", "--listen", f"unix://{path}"
    )
    assert server.read_line() == f"listening unix://{path}"
    with server.connect() as connection, connect_unix(path) as local:
        assert echoes(connection)
        assert echoes(local)


@workers
def test_the_same_port_of_both_families(start_server: StartServer, workers: str) -> None:
    """[::] leaves IPv4 alone where IPv4 has a listener of its own."""
    port = free_port()
    server = start_server(
        *("--workers", workers, "--listen", f"tcp://0.0.0.0:{port}"),
        *("--listen", f"tcp://[::]:{port}"),
    )
    assert (server.url, server.read_line()) == (
        f"tcp://0.0.0.0:{port}",
        f"listening tcp://[::]:{port}",
    )
    for host in ("127.0.0.1", "::1"):
        with server.connect(host) as connection:
            assert echoes(connection)


@workers
def test_any_ipv6_address_serves_ipv4_too(start_server: StartServer, workers: str) -> None:
    server = start_server("--workers", workers, "--listen", "tcp://[::]:0", "--log-level", "debug")
    for host in ("127.0.0.1", "::1"):
        with server.connect(host) as connection:
            assert echoes(connection)
    server.wait_for_log('"peer": "127.0.0.1:')


def test_only_ipv6(start_server: StartServer) -> None:
    server = start_server("-6", "--host", "::")
    with server.connect("::1") as connection:
        assert echoes(connection)
    with pytest.raises(ConnectionRefusedError):
        server.connect("127.0.0.1")


@workers
def test_every_address_has_one_port(start_server: StartServer, workers: str) -> None:
    server = start_server("--workers", workers, "--host", "*")
    assert server.url == f"tcp://0.0.0.0:{server.port}"
    assert server.read_line() == f"listening tcp://[::]:{server.port}"
    for host in ("127.0.0.1", "::1"):
        with server.connect(host) as connection:
            assert echoes(connection)


@pytest.mark.parametrize(
    ("options", "url"),
    [(["-4", "--host", "*"], "tcp://0.0.0.0:"), (["-6"], "tcp://[::1]:")],
)
def test_one_family(start_server: StartServer, options: list[str], url: str) -> None:
    server = start_server(*options, "--admin", "127.0.0.1:0")
    assert server.url.startswith(url)
    assert server.read_line().startswith("admin ")


@workers
def test_a_taken_port(echo_server: EchoServerProcess, workers: str) -> None:
    """Also where the port could be shared with a server of the same user."""
    code, line = one_error("--workers", workers, "--port", str(echo_server.port))
    assert code == 3
    assert line == f"echo-server: error: cannot listen on {echo_server.url}: Address already in use"


def test_a_port_taken_by_workers(start_server: StartServer) -> None:
    server = start_server("--workers", "2")
    code, line = one_error("--workers", "2", "--port", str(server.port))
    assert code == 3
    assert "Address already in use" in line


@workers
def test_a_unix_socket_from_start_to_end(
    start_server: StartServer, tmp_path: Path, workers: str
) -> None:
    path = tmp_path / "echo.sock"
    server = start_server(
        "--listen", f"unix://{path}", "--unix-mode", "0640", "--workers", workers,
        "--log-level", "debug",
    )  # fmt: skip
    assert server.url == f"unix://{path}"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    with connect_unix(path) as connection:
        assert echoes(connection)
    server.wait_for_log('"peer": "unix"')
    code, line = one_error("--listen", f"unix://{path}", "--workers", workers)
    assert (code, "Address already in use" in line) == (3, True)
    assert path.exists()
    server.process.terminate()
    assert server.wait() == 0
    assert not path.exists()


def test_a_stale_unix_socket_is_replaced(start_server: StartServer, tmp_path: Path) -> None:
    path = tmp_path / "echo.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    assert path.exists()
    start_server("--listen", f"unix://{path}")
    with connect_unix(path) as connection:
        assert echoes(connection)


def test_a_full_unix_socket_is_not_stale(tmp_path: Path) -> None:
    path = tmp_path / "echo.sock"
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(str(path))
        busy.listen(0)
        waiting.connect(str(path))
        assert one_error("--listen", f"unix://{path}")[0] == 3
    assert path.exists()


def test_the_unix_socket_of_a_successor_is_left_alone(
    start_server: StartServer, tmp_path: Path
) -> None:
    path = tmp_path / "echo.sock"
    first = start_server("--listen", f"unix://{path}")
    path.unlink()
    start_server("--listen", f"unix://{path}")
    first.process.terminate()
    assert first.wait() == 0
    with connect_unix(path) as connection:
        assert echoes(connection)


@workers
def test_a_unix_socket_that_cannot_be_removed(
    start_server: StartServer, tmp_path: Path, workers: str
) -> None:
    """The drain goes on."""
    folder = tmp_path / "folder"
    folder.mkdir()
    server = start_server("--listen", f"unix://{folder}/echo.sock", "--workers", workers)
    with connect_unix(folder / "echo.sock") as connection:
        assert echoes(connection)
        (folder / "echo.sock").unlink()
        folder.rmdir()
        folder.write_text("in the way")
        server.signal(signal.SIGTERM)
        server.wait_for_log("unix socket not removed")
        assert echoes(connection)
    assert server.wait() == 0
    assert "Traceback" not in server.log()


@workers
def test_an_inherited_listener(start_server: StartServer, workers: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.fileno()
        server = start_server("--listen", f"fd://{number}", "--workers", workers, pass_fds=[number])
        assert server.port == listener.getsockname()[1]
    with server.connect() as connection:
        assert echoes(connection)


def test_descriptors_that_are_not_listeners() -> None:
    with socket.socket() as unbound, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        for number in (unbound.fileno(), datagrams.fileno()):
            os.set_inheritable(number, True)
            code = os.spawnve(
                os.P_WAIT,
                SERVER[0],
                [*SERVER, "--listen", f"fd://{number}"],
                environment(),
            )
            assert code == 3
    assert one_error("--listen", "fd://77") == (
        3,
        "echo-server: error: cannot listen on fd://77: it is not open",
    )
    assert one_error("--listen", "fd://0")[1].endswith("fd://0: it is not a socket")


@pytest.mark.slow
def test_readiness_is_notified(start_server: StartServer, tmp_path: Path) -> None:
    """A service of type notify sends its state to systemd."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(DEADLINE)
        manager.bind(str(tmp_path / "notify"))
        server = start_server("--workers", "2", NOTIFY_SOCKET=str(tmp_path / "notify"))
        assert manager.recv(100) == b"READY=1"
        server.signal(signal.SIGHUP)
        reloading = manager.recv(100).splitlines()
        assert reloading[0] == b"RELOADING=1"
        assert reloading[1].startswith(b"MONOTONIC_USEC=")
        assert manager.recv(100) == b"READY=1"
        server.process.terminate()
        assert manager.recv(100) == b"STOPPING=1"
        assert server.wait() == 0


def test_readiness_of_one_worker_in_the_abstract_namespace(start_server: StartServer) -> None:
    name = f"echo-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(DEADLINE)
        manager.bind(f"\0{name}")
        server = start_server(NOTIFY_SOCKET=f"@{name}")
        assert manager.recv(100) == b"READY=1"
        server.process.terminate()
        assert manager.recv(100) == b"STOPPING=1"
        assert server.wait() == 0


def test_a_service_manager_that_no_longer_exists(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(NOTIFY_SOCKET=str(tmp_path / "nobody"))
    server.wait_for_log("service manager not notified")
    with server.connect() as connection:
        assert echoes(connection)


def test_the_backlog_of_a_unix_socket_is_served_when_the_drain_begins(
    start_server: StartServer, tmp_path: Path
) -> None:
    path = tmp_path / "echo.sock"
    server = start_server("--listen", f"unix://{path}")
    server.signal(signal.SIGSTOP)
    connections = [connect_unix(path) for _ in range(50)]
    server.process.terminate()
    server.signal(signal.SIGCONT)
    for connection in connections:
        assert echoes(connection)
        connection.close()
    assert server.wait() == 0


ENGINES = ("hub", "greenlets", "threads")


def assert_all_connect(url: str, within: Sequence[str] = ()) -> None:
    """Check that our own clients can connect to an announced address as it is."""
    result = run([*within, *CLIENT, url], stdin=b"over there")
    assert (result.returncode, result.stdout) == (0, b"over there"), result.stderr
    for engine in ENGINES:
        result = run([*within, *LOAD, "run", url, "--engine", engine, "-c", "2", "-n", "10"])
        assert result.returncode == 0, result.stdout + result.stderr


linux = pytest.mark.skipif(sys.platform != "linux", reason="abstract names are Linux's")


@pytest.mark.slow
@linux
@workers
def test_an_abstract_unix_socket(start_server: StartServer, workers: str) -> None:
    url = f"unix://@echo-test-{os.getpid()}-{workers}"
    server = start_server("--listen", url, "--workers", workers)
    assert server.url == url
    assert_all_connect(url)
    code, line = one_error("--listen", url)
    assert (code, line.endswith(f"cannot listen on {url}: Address already in use")) == (3, True)
    server.process.terminate()
    assert server.wait() == 0


@pytest.mark.slow
@linux
def test_an_inherited_abstract_unix_socket(start_server: StartServer) -> None:
    name = f"echo-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}")
        listener.listen()
        number = listener.fileno()
        server = start_server("--listen", f"fd://{number}", pass_fds=[number])
    assert server.url == f"unix://@{name}"
    assert_all_connect(server.url)


@linux
def test_an_inherited_unix_socket_whose_name_cannot_be_written(start_server: StartServer) -> None:
    """Some programs hand the kernel all 108 bytes, zeros included."""
    name = f"\0echo-test-{os.getpid()}".ljust(108, "\0")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(name)
        listener.listen()
        number = listener.fileno()
        server = start_server("--listen", f"fd://{number}", pass_fds=[number])
    assert server.url == "unix://(unnamed)"
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(name)
        assert echoes(connection)


@pytest.mark.slow
def test_a_file_whose_name_begins_with_an_at(
    start_server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    server = start_server("--listen", "unix://./@echo")
    assert server.url == "unix://./@echo"
    assert stat.S_ISSOCK(Path("@echo").stat().st_mode)
    assert_all_connect(server.url)


# A network namespace whose loopback interface has a link-local address; root in it is no root here.
NAMESPACE = ("unshare", "--map-root-user", "--net", "sh", "-c")
LINK_LOCAL = "ip link set lo up && ip address add fe80::7/64 dev lo nodad"


@pytest.fixture
def link_local() -> tuple[str, ...]:
    """The command that runs another where there is a link-local address."""
    try:
        made = subprocess.run([*NAMESPACE, LINK_LOCAL], check=False, capture_output=True)
    except FileNotFoundError:
        pytest.skip("unshare is not installed")
    if made.returncode:
        pytest.skip(f"no network namespace: {made.stderr.decode()}")
    return (*NAMESPACE, f'{LINK_LOCAL} && exec "$@"', "sh")


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--admin", "[fe80::7%lo]:0")], ids=["plain", "admin"])
def test_a_link_local_address_has_a_zone(
    start_server: StartServer, link_local: tuple[str, ...], options: tuple[str, ...]
) -> None:
    server = start_server(
        *("--listen", "tcp://[fe80::7%lo]:0", "--listen", "udp://[fe80::7%lo]:0"),
        *("--listen", "udp://[::]:0", "--log-level", "debug", *options),
        command=(*link_local, *SERVER),
    )
    assert server.url.startswith("tcp://[fe80::7%lo]:")
    datagrams = server.read_line().removeprefix("listening ")
    assert datagrams.startswith("udp://[fe80::7%lo]:")
    any_port = server.read_line().rpartition(":")[2]
    if options:
        assert server.read_line().startswith("admin http://[fe80::7%lo]:")
    within = ("nsenter", "--preserve-credentials", "-U", "-n", "-t", str(server.pid))
    assert_all_connect(server.url, within)
    for url in (datagrams, f"udp://[fe80::7%lo]:{any_port}"):
        result = run([*within, *LOAD, "run", url, "-c", "2", "-n", "10"])
        assert result.returncode == 0, result.stdout + result.stderr
    server.wait_for_log('"peer": "[fe80::7%lo]:')
    refused = run([*within, *CLIENT, "tcp://[fe80::7%lo]:9"], stdin=b"x")
    assert refused.stderr.decode() == (
        "echo-client: error: cannot connect to tcp://[fe80::7%lo]:9: Connection refused\n"
    )
    source = ("--source-ip", "fe80::7%lo", server.url)
    assert run([*within, *CLIENT, *source], stdin=b"x").stdout == b"x"
    for engine in ENGINES:
        result = run([*within, *LOAD, "run", *source, "-c", "2", "-n", "10", "--engine", engine])
        assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--listen", "ftp://x"], "--listen: 'ftp://x': the scheme 'ftp' is not supported"),
        (["--listen", "fd://x"], "--listen: 'fd://x': 'x' is not a descriptor; write fd://3"),
        (["--listen", "fd://3", "--listen", "fd://3"], "--listen fd://3 is given twice"),
        (["--admin", "udp://localhost:7"], "--admin: 'udp://localhost:7' is not HOST:PORT"),
        (["--listen", "unix://"], "--listen: unix:// has no path"),
        (["--listen", "unix:///" + "x" * 107], "has 108 bytes; a unix socket path can have at"),
        (["--listen", "tcp://h:1", "--port", "7"], "--port cannot be combined with --listen"),
        (["--listen", "tcp://h:1", "--host", "x"], "--host cannot be combined with --listen"),
        (["-4", "-6"], "-4 and -6 cannot be combined"),
        (["-4", "--host", "::1"], "-4: tcp://[::1]:50007 is an IPv6 address"),
        (["-6", "--listen", "tcp://127.0.0.1:7"], "tcp://127.0.0.1:7 is an IPv4 address"),
        (["--unix-mode", "999"], "--unix-mode: '999' is not a file mode; write it as in 660"),
        (["--unix-mode", "1777"], "--unix-mode: '1777' is not a file mode"),
        (["--workers", "0"], "--workers: '0' is neither auto nor a number from 1 to 512"),
        (["--workers", "many"], "--workers: 'many' is neither auto nor a number"),
        (["--worker", "0:1"], "--worker: '0:1' is not an assignment of the supervisor"),
    ],
)
def test_bad_input(arguments: list[str], said: str) -> None:
    code, line = one_error(*arguments)
    assert code == 2
    assert said in line


@pytest.mark.parametrize("name", ["", "missing/echo.sock"])
def test_a_unix_socket_that_cannot_be_created(tmp_path: Path, name: str) -> None:
    code, line = one_error("--listen", f"unix://{tmp_path / name}")
    assert code == 3
    assert "cannot listen on unix://" in line


def test_an_existing_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("precious")
    code, line = one_error("--listen", f"unix://{path}")
    assert (code, line.endswith("the path exists and is not a socket")) == (3, True)
    assert path.read_text() == "precious"


def test_the_client_talks_to_a_unix_socket(start_server: StartServer, tmp_path: Path) -> None:
    path = tmp_path / "echo.sock"
    start_server("--listen", f"unix://{path}")
    result = run([*CLIENT, f"unix://{path}"], stdin=b"over a file")
    assert (result.returncode, result.stdout) == (0, b"over a file")
    missing = run([*CLIENT, f"unix://{path}.not"], stdin=b"x")
    assert missing.returncode == 1
    assert missing.stderr.decode() == (
        f"echo-client: error: cannot connect to unix://{path}.not: No such file or directory\n"
    )


def announced(*options: str, **variables: str) -> tuple[int, str]:
    """Exit code and error of a server that finds these variables as if systemd had set them."""
    program = (
        "import os, sys\n"
        "os.environ.setdefault('LISTEN_PID', str(os.getpid()))\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'echo_server', *sys.argv[1:]])\n"
    )
    result = run([sys.executable, "-c", program, *options], stdin=b"", **variables)
    (line,) = result.stderr.decode().splitlines()
    return result.returncode, line


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"LISTEN_FDS": "999999"}, "LISTEN_FDS=999999, but descriptor 3 is not open"),
        ({"LISTEN_FDS": "9" * 5000}, f"LISTEN_FDS={'9' * 5000} is not a number from 0 to"),
        ({"LISTEN_FDS": "-1"}, "LISTEN_FDS=-1 is not a number from 0 to 999999999"),
        ({"LISTEN_FDS": "some"}, "LISTEN_FDS=some is not a number"),
        ({"LISTEN_FDS": "\N{ARABIC-INDIC DIGIT ONE}"}, "is not a number"),
        ({"LISTEN_FDS": "1", "LISTEN_PID": "me"}, "LISTEN_PID=me is not a number"),
    ],
    ids=str,
)
def test_invalid_activation_variables(variables: dict[str, str], said: str) -> None:
    code, line = announced(**variables)
    assert code == 3
    assert line.startswith("echo-server: error: cannot use the sockets of systemd: ")
    assert said in line


def test_descriptors_that_systemd_opened_for_another_process(start_server: StartServer) -> None:
    server = start_server(LISTEN_PID="1", LISTEN_FDS="999999")
    with server.connect() as connection:
        assert echoes(connection)


def test_servers_that_start_simultaneously_on_one_path(tmp_path: Path) -> None:
    """One of them listens there, and the others say that they do not."""
    path = tmp_path / "echo.sock"
    endpoint = UnixEndpoint(str(path))
    config = ServerConfig(listen=(endpoint,))
    barrier = threading.Barrier(4)

    def start(_: int) -> Listeners | str:
        barrier.wait(DEADLINE)
        try:
            return open_listeners(config)
        except ListenError as error:
            return str(error)

    with ThreadPoolExecutor(barrier.parties) as pool:
        for turn in range(200):
            if turn % 2:
                with socket.socket(socket.AF_UNIX) as left_behind:
                    left_behind.bind(str(path))
            outcomes = list(pool.map(start, range(barrier.parties)))
            (winner,) = [one for one in outcomes if isinstance(one, Listeners)]
            with winner, connect_unix(path):
                taken = f"cannot listen on {endpoint}: Address already in use"
                assert outcomes.count(taken) == barrier.parties - 1
            assert not path.exists()


def hold_the_lock(folder: Path, stack: ExitStack) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    stack.callback(os.close, descriptor)
    fcntl.flock(descriptor, fcntl.LOCK_EX)


@pytest.mark.slow
def test_a_directory_locked_by_another_process(start_server: StartServer, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "echo.sock"
    with ExitStack() as stack:
        hold_the_lock(folder, stack)
        server = start_server("--listen", f"unix://{path}")
        server.wait_for_log("folder not locked")
        with connect_unix(path) as connection:
            assert echoes(connection)
        server.process.terminate()
        assert server.wait() == 0
    assert not path.exists()


def give_up_capabilities() -> None:
    """Let permissions count for root too (capabilities(7)); others have given them up."""
    for capability in (_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH):
        ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)


@workers
def test_an_unreadable_directory(start_server: StartServer, tmp_path: Path, workers: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "echo.sock"
    folder.chmod(0o333)
    server = start_server(
        *("--listen", f"unix://{path}", "--workers", workers, "--log-level", "debug"),
        preexec=give_up_capabilities,
    )
    server.wait_for_log("folder not locked")
    with connect_unix(path) as connection:
        assert echoes(connection)
    server.process.terminate()
    assert server.wait() == 0
    assert not path.exists()
    folder.chmod(0o700)
