"""Shells in which the programs are installed."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from support.processes import environment

_PACKAGES = {
    "echo-server": "echo_server",
    "echo-client": "echo_client",
    "echo-load": "echo_load",
}


def with_programs(folder: Path, **settings: str) -> dict[str, str]:
    """Return the environment of a shell that finds the programs.

    Args:
        folder: where to install them.
        **settings: environment variables to set.
    """
    folder.mkdir()
    for program, package in _PACKAGES.items():
        path = folder / program
        path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m {package} "$@"\n')
        path.chmod(0o755)
    return environment(PATH=f"{folder}:{environment()['PATH']}", **settings)
