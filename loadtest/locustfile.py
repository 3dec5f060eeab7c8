"""The swarm for plain `locust`; the file itself is in echo_load/swarm."""

from echo_load.swarm.locustfile import EchoBlockUser, EchoUser

__all__ = ["EchoBlockUser", "EchoUser"]
