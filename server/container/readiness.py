"""The health check of the server's container image: a request to /readyz of the admin page.

It is run every few seconds as `python3 -IS readiness.py`, and so imports few modules. The address
of the page is taken from ECHO_SERVER_ADMIN, as in the server.
"""

import os
import socket
import sys

_TIMEOUT_SECONDS = 2.0
# Addresses that stand for all addresses, and the one to connect to instead.
_LOOPBACK = {
    "": "127.0.0.1",
    "*": "127.0.0.1",
    "0.0.0.0": "127.0.0.1",  # noqa: S104  # not bound here
    "[::]": "::1",
}


def main() -> None:
    """Print the response as one line, and exit with 0 if the server is ready, otherwise with 1."""
    admin = os.environ.get("ECHO_SERVER_ADMIN", "")
    host, _, port = admin.removeprefix("http://").rstrip("/").rpartition(":")
    if not port.isdecimal():
        sys.exit(f"ECHO_SERVER_ADMIN is {admin!r}, which is not HOST:PORT")
    try:
        with socket.create_connection(
            (_LOOPBACK.get(host, host.strip("[]")), int(port)), _TIMEOUT_SECONDS
        ) as connection:
            connection.sendall(b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n")
            response = connection.makefile("rb").read().decode()
    except OSError as error:
        sys.exit(f"{admin}: {error}")
    head, _, body = response.partition("\r\n\r\n")
    print(body.strip() or head)
    sys.exit(head.split(" ", 2)[1:2] != ["200"])


if __name__ == "__main__":
    main()
