"""The health check of the server's image: is what `--admin` serves ready?

It is run every few seconds and imports next to nothing: `python3 -IS readiness.py`. Where the page
is, it learns from ECHO_SERVER_ADMIN, as the server does.
"""

import os
import socket
import sys

_TIMEOUT_SECONDS = 2.0
# Addresses that are listened on, and the one to ask instead.
_ANY = {
    "": "127.0.0.1",
    "*": "127.0.0.1",
    "0.0.0.0": "127.0.0.1",  # noqa: S104  # it is asked, not listened on
    "[::]": "::1",
}


def main() -> None:
    """Print in one line what the page says, and exit with 0 if it is that all is ready."""
    admin = os.environ.get("ECHO_SERVER_ADMIN", "")
    host, _, port = admin.removeprefix("http://").rstrip("/").rpartition(":")
    if not port.isdecimal():
        sys.exit(f"ECHO_SERVER_ADMIN is {admin!r}, which is not HOST:PORT")
    try:
        with socket.create_connection(
            (_ANY.get(host, host.strip("[]")), int(port)), _TIMEOUT_SECONDS
        ) as connection:
            connection.sendall(b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n")
            answer = connection.makefile("rb").read().decode()
    except OSError as error:
        sys.exit(f"{admin}: {error}")
    head, _, body = answer.partition("\r\n\r\n")
    print(body.strip() or head)
    sys.exit(head.split(" ", 2)[1:2] != ["200"])


if __name__ == "__main__":
    main()
