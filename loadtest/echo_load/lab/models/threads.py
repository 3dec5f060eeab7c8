"""An echo server with a thread for each connection."""

from __future__ import annotations

import threading

from echo_load.lab.models.listening import echo, listen


def serve() -> None:
    """Accept connections and start a thread for each."""
    with listen() as listener:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=echo, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    serve()
