"""A plain socket user for locust: a task sends 64 bytes, receives 64 and reports a request.

    locust -f locust_user.py,locust_warmup.py --headless -u USERS -r USERS -t SECONDSs --json \
        --host tcp://127.0.0.1:PORT --warmup-seconds WARMUP_SECONDS

Locust monkey-patches the process when it is imported, so that each user is a greenlet. Replies are
not checked. If the server closes a connection, the request fails, and locust ends with status 1.
"""

import socket
import time
from urllib.parse import urlsplit

import locust

MESSAGE = b"x" * 64


def round_trip(user: "SocketUser") -> None:
    begin = time.perf_counter()
    error = None
    received = 0
    user.connection.sendall(MESSAGE)
    while received < len(MESSAGE):
        data = user.connection.recv(len(MESSAGE) - received)
        if not data:
            error = ConnectionError("the server closed the connection")
            break
        received += len(data)
    user.environment.events.request.fire(
        request_type="tcp",
        name="message",
        response_time=(time.perf_counter() - begin) * 1000,
        response_length=received,
        exception=error,
    )
    if error is not None:
        raise error


class SocketUser(locust.User):
    tasks = [round_trip]  # noqa: RUF012 (locust looks for a list)

    def on_start(self) -> None:
        target = urlsplit(self.host or "")
        self.connection = socket.create_connection((target.hostname, target.port))
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def on_stop(self) -> None:
        self.connection.close()
