"""An echo server that forks a process for each connection."""

from __future__ import annotations

import os
import signal

from echo_load.lab.models.listening import echo, listen


def serve() -> None:
    """Accept connections and fork for each."""
    # The kernel reaps children that have ended (sigaction(2), SIG_IGN).
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with listen() as listener:
        while True:
            connection, _ = listener.accept()
            with connection:
                if os.fork() == 0:
                    listener.close()
                    echo(connection)
                    os._exit(0)


if __name__ == "__main__":
    serve()
