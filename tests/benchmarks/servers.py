"""The echo servers that the benchmarks compare."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import trustme

from measuring import BUILD, PEERS, compile_peer

Command = list[str]

REFERENCE = "C, epoll"
OURS = "echo-server"
LIMITED = "echo-server, all limits enabled"
GO = "Go, a goroutine per connection"
UVLOOP = "uvloop, Protocol"
ASYNCIO = "asyncio, Protocol"
THREADS = "a thread per connection"
TUTORIAL = "the tutorial's gevent server"
ALL_LIMITS = (
    *("--max-connections", "15k", "--max-connections-per-ip", "15k", "--idle-timeout", "1m"),
    *("--rate-limit", "100GB", "--access-log", "--access-log-sample", "1%"),
    *("--admin", "127.0.0.1:0"),
)
_PYTHON = {
    UVLOOP: "uvloop",
    TUTORIAL: "tutorial",
    "gevent StreamServer, a greenlet per connection": "greenlet",
    ASYNCIO: "asyncio",
    THREADS: "threads",
}
# The tutorial's server receives up to this many bytes and sends them with one call, perhaps only in
# part. A larger message might never come back whole.
_TUTORIAL_BYTES = 1024
_MOST_THREADS = 1000


class Peers:
    """The commands of echo-server and its peers; those in C and Go are compiled.

    Args:
        directory: directory of the compiled programs and of certificates.

    Attributes:
        left_out: peers that this machine cannot run, with the reason.
        tls_generator: the generator over TLS; None without OpenSSL's headers.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.left_out: dict[str, str] = {}
        self._has_uvloop = importlib.util.find_spec("uvloop") is not None
        if not self._has_uvloop:
            self.left_out[UVLOOP] = "uvloop is not installed"
        self._go = self._built_go()
        self.tls_generator = self._built_tls()

    def compiled(self, name: str) -> str:
        """Return the path of a C peer; the first call compiles it."""
        program = self._directory / BUILD / name
        return str(program) if program.exists() else compile_peer(name, self._directory)

    def _built_go(self) -> Command | None:
        compiler = shutil.which("go")
        if compiler is None:
            self.left_out[GO] = "there is no Go compiler"
            return None
        program = str(self._directory / "echo_goroutines")
        subprocess.run([compiler, "build", "-o", program, PEERS / "echo_goroutines.go"], check=True)
        return ["env", "GOMAXPROCS=1", program]

    def _built_tls(self) -> str | None:
        try:
            return compile_peer("tls_loop", self._directory, "-lssl", "-lcrypto")
        except subprocess.CalledProcessError:
            self.left_out["TLS"] = "OpenSSL's headers are missing"
            return None

    def servers(self, *, connections: int, size: int = 64) -> dict[str, Command]:
        """Return the servers that support a workload, the reference first.

        Args:
            connections: number of connections.
            size: size of the messages in flight on a connection, in bytes.
        """
        found = {
            REFERENCE: [self.compiled("echo_epoll"), "0"],
            OURS: _ours("--port", "0"),
            LIMITED: _ours("--port", "0", *ALL_LIMITS),
        }
        if self._go is not None:
            found[GO] = self._go
        for name, kind in _PYTHON.items():
            if name == UVLOOP and not self._has_uvloop:
                continue
            if name == TUTORIAL and size > _TUTORIAL_BYTES:
                continue
            if name == THREADS and connections > _MOST_THREADS:
                continue
            found[name] = _python_server(kind)
        return found

    def workers(self, counts: Sequence[int]) -> dict[str, Command]:
        """Return echo-server with different numbers of workers."""
        return {
            f"{count} worker{'s' if count > 1 else ''}": _ours(
                "--port", "0", "--workers", str(count)
            )
            for count in counts
        }

    def datagram_servers(self) -> dict[str, Command]:
        """Return the servers over UDP."""
        return {
            "C, recvfrom and sendto": [self.compiled("echo_datagrams")],
            OURS: _ours("--listen", "udp://127.0.0.1:0"),
        }

    def tls_servers(self) -> dict[str, Command]:
        """Return the servers over TLS, with a certificate of their own."""
        cert, key = str(self._directory / "cert.pem"), str(self._directory / "key.pem")
        issued = trustme.CA().issue_cert("localhost")
        issued.private_key_pem.write_to_path(key)
        issued.cert_chain_pems[0].write_to_path(cert)
        found = {
            ASYNCIO: _python_server("asyncio", cert, key),
            OURS: _ours("--listen", "tls://127.0.0.1:0", "--tls-cert", cert, "--tls-key", key),
        }
        if self._has_uvloop:
            found[UVLOOP] = _python_server("uvloop", cert, key)
        return found


def _ours(*arguments: str) -> Command:
    return [sys.executable, "-m", "echo_server", *arguments]


def _python_server(*arguments: str) -> Command:
    return [sys.executable, str(PEERS / "python_servers.py"), *arguments]
