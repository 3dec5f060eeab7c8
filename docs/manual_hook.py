"""The build hook of the wheel: writes the manual pages, and installs them in share/man/man1."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ManualPages(BuildHookInterface[Any]):
    """Adds a manual page for each command to a wheel, also to that of an editable installation."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Write the pages before the wheel is built."""
        root = Path(self.root)
        # What is built is not installed yet.
        for folder in ("docs", "core", "server", "client", "loadtest"):
            sys.path.insert(0, str(root / folder))
        from make_man import write_manual

        self._pages = TemporaryDirectory()  # until `finalize`
        write_manual(Path(self._pages.name), self.metadata.version)
        build_data["shared_data"][self._pages.name] = "share/man/man1"

    def finalize(
        self,
        version: str,  # noqa: ARG002
        build_data: dict[str, Any],  # noqa: ARG002
        artifact_path: str,  # noqa: ARG002
    ) -> None:
        """Remove the pages, which are in the wheel."""
        self._pages.cleanup()
