"""Notification of systemd, or another service manager, of the server's state (sd_notify(3))."""

from __future__ import annotations

import os
import socket
import time

import structlog

log = structlog.get_logger()

_SEND_SECONDS = 1.0


class Notifier:
    """A sender of this process's state to the service manager, if there is one.

    NOTIFY_SOCKET is removed from the environment, so that child processes do not send states, too.
    """

    def __init__(self) -> None:
        path = os.environ.pop("NOTIFY_SOCKET", "")
        # A path that begins with @ stands for an abstract name (unix(7)).
        self._address = f"\0{path[1:]}" if path.startswith("@") else path

    def ready(self) -> None:
        """Report that connections are accepted."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Report that a restart of the workers has begun; `ready` reports its end."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Report that the drain has begun."""
        self._send("STOPPING=1")

    def _send(self, state: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notification:
                # A service manager that does not receive must not delay the handling of signals.
                notification.settimeout(_SEND_SECONDS)
                notification.sendto(state.encode(), self._address)
        except OSError as error:
            reason = error.strerror or str(error)
            log.warning("service manager not notified", state=state, reason=reason)
