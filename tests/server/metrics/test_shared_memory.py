"""The memory that the counters are in, on systems that will not give it."""

from __future__ import annotations

import ctypes
import errno
import platform
import resource
import struct
import subprocess
from functools import partial

import pytest

from support.processes import DEADLINE, SERVER, StartServer, echoes, environment

# memfd_create's number (asm/unistd.h).
_MEMFD_CREATE = {"x86_64": 319, "aarch64": 279}
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 22, 38
_SECCOMP_MODE_FILTER = 2
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def deny_memfd(number: int) -> None:
    """Let memfd_create fail in this process and its children (seccomp(2)), as containers do."""
    instructions = (
        (_LOAD, 0, 0, 0),
        (_JUMP_IF_EQUAL, 0, 1, _MEMFD_CREATE[platform.machine()]),
        (_RETURN, 0, 0, _ERRNO | number),
        (_RETURN, 0, 0, _ALLOW),
    )
    code = b"".join(struct.pack("=HBBI", *one) for one in instructions)
    program = _Program(len(instructions), code)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "prctl")


def forbid_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


pytestmark = pytest.mark.skipif(
    platform.machine() not in _MEMFD_CREATE, reason="the number of the system call is unknown"
)


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS], ids=errno.errorcode.get)
@pytest.mark.parametrize("options", [(), ("--workers", "2", "--admin", "127.0.0.1:0")], ids=str)
def test_a_temporary_file_is_used_without_shared_memory(
    start_server: StartServer, number: int, options: tuple[str, ...]
) -> None:
    server = start_server(*options, preexec=partial(deny_memfd, number))
    with server.connect() as connection:
        assert echoes(connection)
        if options:
            assert server.metric("connections_open") == 1


@pytest.mark.untraced
@pytest.mark.parametrize("workers", ["1", "2"])
def test_without_any_memory_the_error_is_one_line(workers: str) -> None:
    result = subprocess.run(
        [*SERVER, "--port", "0", "--workers", workers],
        capture_output=True,
        timeout=DEADLINE,
        check=False,
        env=environment(),
        preexec_fn=forbid_files,
    )
    (line,) = result.stderr.decode().splitlines()
    assert line.startswith("echo-server: error: cannot allocate shared memory for the counters: ")
    assert result.returncode == 3
