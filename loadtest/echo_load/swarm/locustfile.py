"""A swarm on an echo service: `locust -f locustfile.py --host tcp://HOST:50007`.

`EchoUser` runs if no class is named; an `EchoBlockUser` drives many connections, by default 100.
The number of users follows `--stages` if given, otherwise locust's own options.
"""

# First, because locust monkey-patches the process, which must be done before ssl is imported.
import locust  # isort: skip

from locust import task

from echo_load.swarm import users
from echo_load.swarm.hooks import install

install(locust.events)


class EchoUser(users.EchoUser):
    """One connection that sends one message after the other."""

    @task
    def echo(self) -> None:
        """Send a message and check the reply."""
        self.client.echo()


class EchoBlockUser(users.EchoBlockUser):
    """A user with many connections, driven by the hub engine."""

    only_if_named = True
