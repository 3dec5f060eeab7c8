"""Images made of Debian packages, for machines that cannot pull the real ones."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from support.docker import BUILD_SECONDS, can_have, docker, has_image

_SUITE = "bookworm"
_PACKAGES = "python3-venv,ca-certificates"
_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
_PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "proxy")


def pinned_image(file: Path, pattern: str) -> str:
    """The image that a file of the project names."""
    found = re.search(pattern, file.read_text(), re.MULTILINE)
    assert found, (file, pattern)
    return found[1]


def python_image(real: str) -> str:
    """The real image, or one of debootstrap with this machine's authorities and pip settings."""
    if can_have(real):
        return real
    bundle = _authorities().read_bytes()
    settings = dict(_pip_settings(), PIP_CERT=_BUNDLE)
    digest = hashlib.sha256(bundle + repr(sorted(settings.items())).encode()).hexdigest()
    tag = f"echoswarm-stand-in-python:{_SUITE}-{digest[:12]}"
    if not has_image(tag):
        _bootstrap(tag, bundle, settings)
    return tag


def prometheus_image(real: str, base: str) -> str:
    """The real image, or one of Debian's package on a stand-in for Python's."""
    if can_have(real):
        return real
    tag = f"echoswarm-stand-in-prometheus:{base.rpartition(':')[2]}"
    if not has_image(tag):
        lines = (
            f"FROM {base}",
            "RUN apt-get update -qq && DEBIAN_FRONTEND=noninteractive "
            "apt-get install -y -qq --no-install-recommends prometheus",
            "USER 65534:65534",
            'ENTRYPOINT ["prometheus"]',
        )
        docker("build", "--quiet", "--tag", tag, "-", stdin="\n".join(lines).encode())
    return tag


def _authorities() -> Path:
    """The certificates that this machine trusts."""
    paths = ssl.get_default_verify_paths()
    for path in (os.environ.get("PIP_CERT"), paths.cafile, _BUNDLE):
        if path and Path(path).is_file():
            return Path(path)
    raise AssertionError("this machine has no bundle of certificates; install ca-certificates")


def _pip_settings() -> Iterator[tuple[str, str]]:
    """Where pip gets packages here, as far as a container reaches that too."""
    for name in _PIP_SETTINGS:
        variable = f"PIP_{name.upper().replace('-', '_')}"
        value = os.environ.get(variable) or _configured(name)
        reachable = [one for one in value.split() if not one.startswith("file:")]
        if reachable:
            yield variable, " ".join(reachable)


def _configured(name: str) -> str:
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", f"global.{name}"],
        capture_output=True,
        check=False,
        text=True,
    )
    return asked.stdout.strip()


def _bootstrap(tag: str, bundle: bytes, settings: dict[str, str]) -> None:
    if shutil.which("debootstrap") is None:
        raise AssertionError(
            "no image can be pulled here; install debootstrap, of which a stand-in is made"
        )
    with TemporaryDirectory() as folder:
        made = subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", _SUITE, folder],
            capture_output=True,
            check=False,
            timeout=BUILD_SECONDS,
            text=True,
        )
        assert made.returncode == 0, made.stdout[-2000:]
        Path(folder, _BUNDLE.lstrip("/")).write_bytes(bundle)
        changes = [f"--change=ENV {name}={value!r}" for name, value in settings.items()]
        with subprocess.Popen(
            ["tar", "--directory", folder, "--exclude=./var/cache/apt/*", "--create", "."],
            stdout=subprocess.PIPE,
        ) as tar:
            subprocess.run(
                ["docker", "import", *changes, "-", tag],
                stdin=tar.stdout,
                capture_output=True,
                check=True,
                timeout=BUILD_SECONDS,
            )
