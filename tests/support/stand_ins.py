"""Stand-ins for images, built from Debian packages on machines that cannot pull the real ones."""

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

from support.docker import BUILD_SECONDS, docker, has_image, is_available

_SUITE = "bookworm"
_PACKAGES = "python3-venv,ca-certificates"
_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
_PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "proxy")


def pinned_image(file: Path, pattern: str) -> str:
    """Return the image that a file of the project names, the first group of a pattern."""
    found = re.search(pattern, file.read_text(), re.MULTILINE)
    assert found, (file, pattern)
    return found[1]


def python_image(real: str) -> str:
    """Return Python's image, or a stand-in built by debootstrap.

    The stand-in has this machine's certificate authorities and settings of pip.

    Args:
        real: name of the real image.
    """
    if is_available(real):
        return real
    bundle = _authorities().read_bytes()
    settings = dict(_pip_settings(), PIP_CERT=_BUNDLE)
    digest = hashlib.sha256(bundle + repr(sorted(settings.items())).encode()).hexdigest()
    tag = f"echoswarm-stand-in-python:{_SUITE}-{digest[:12]}"
    if not has_image(tag):
        _bootstrap(tag, bundle, settings)
    return tag


def prometheus_image(real: str, base: str) -> str:
    """Return Prometheus's image, or a stand-in with Debian's package.

    Args:
        real: name of the real image.
        base: name of the stand-in for Python's image, on which it is built.
    """
    if is_available(real):
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
    """Return the file of the certificate authorities that this machine trusts."""
    paths = ssl.get_default_verify_paths()
    for path in (os.environ.get("PIP_CERT"), paths.cafile, _BUNDLE):
        if path and Path(path).is_file():
            return Path(path)
    raise AssertionError("this machine has no bundle of certificates; install ca-certificates")


def _pip_settings() -> Iterator[tuple[str, str]]:
    """Yield the settings of pip as environment variables, without URLs of local files."""
    for name in _PIP_SETTINGS:
        variable = f"PIP_{name.upper().replace('-', '_')}"
        value = os.environ.get(variable) or _configured(name)
        reachable = [one for one in value.split() if not one.startswith("file:")]
        if reachable:
            yield variable, " ".join(reachable)


def _configured(name: str) -> str:
    """Return a setting of pip's configuration files; empty if it is not set."""
    found = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", f"global.{name}"],
        capture_output=True,
        check=False,
        text=True,
    )
    return found.stdout.strip()


def _bootstrap(tag: str, bundle: bytes, settings: dict[str, str]) -> None:
    """Build the stand-in for Python's image.

    Args:
        tag: its name.
        bundle: certificate authorities in PEM format.
        settings: environment variables to set in it.
    """
    if shutil.which("debootstrap") is None:
        raise AssertionError("no image can be pulled here; install debootstrap to build stand-ins")
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
