"""Users with behaviour of their own: a chat that is mostly short, and sometimes sends a file.

locust -f docs/examples/locustfile.py --host tcp://127.0.0.1:50007
"""

import locust  # isort: skip  # first: it patches the process

import random

from locust import between, task

from echo_load.swarm.hooks import install
from echo_load.swarm.users import EchoUser

install(locust.events)


class Chat(EchoUser):
    """A user who writes lines with pauses between them."""

    wait_time = between(0.01, 0.05)

    @task(10)
    def write_a_line(self) -> None:
        """Send a line and compare what comes back."""
        self.client.echo(b"hello " * random.randint(1, 20))

    @task(1)
    def send_a_file(self) -> None:
        """Send 64 KiB and compare them."""
        self.client.echo(random.randbytes(65536))

    @task(1)
    def leave_and_return(self) -> None:
        """Close the connection; the next message opens another."""
        self.client.close()
