"""The admin page: /metrics for Prometheus, /healthz and /readyz for load balancers.

The supervisor serves it, in a thread. It reads the counters where the workers write them, in
shared memory: a scrape costs the workers nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from email.message import Message
from http import HTTPStatus
from typing import Protocol

import structlog

from echo_core.endpoint import NetworkEndpoint
from echo_core.http_server import MOST_CONNECTIONS, Answer, HttpServer
from echo_core.standard_streams import announce
from echo_server.config import ServerConfig
from echo_server.errors import ListenError
from echo_server.listeners import bound_endpoint, listen_tcp
from echo_server.metrics.counters import WorkerFigures
from echo_server.metrics.exposition import Format, Metrics

log = structlog.get_logger()

_BACKLOG = 128


class Service(Protocol):
    """The source of the admin page's content."""

    def readiness(self) -> tuple[bool, str]:
        """Return whether connections are and will be accepted, and the state in words."""

    def figures(self) -> Sequence[WorkerFigures]:
        """Return the figures of every worker."""


class AdminServer:
    """The admin page, served by a thread of its own as long as the process runs.

    Args:
        endpoint: where; port 0 is any free port.
        config: the settings of the server.
        service: what it is about.
        descriptors: how many the process may open; the page takes a quarter of them at most.

    Raises:
        ListenError: the endpoint cannot be listened on.
    """

    def __init__(
        self, endpoint: NetworkEndpoint, config: ServerConfig, service: Service, descriptors: int
    ) -> None:
        try:
            listener = listen_tcp(endpoint, _BACKLOG)
        except ListenError as error:
            raise ListenError(f"--admin: {error}") from error
        self._endpoint = bound_endpoint(listener)
        self._service = service
        self._metrics = Metrics(config.workers, config.max_connections)
        most = max(1, min(MOST_CONNECTIONS, descriptors // 4))
        self._server = HttpServer(listener, self._answer, log.bind(), most=most)

    def announce(self) -> None:
        """Print the address of the page to standard output."""
        announce(f"admin http://{self._endpoint.location}")

    def _answer(self, path: str, headers: Message) -> Answer:
        match path:
            case "/metrics":
                form = Format.accepted(headers.get("Accept"))
                page = self._metrics.render(self._service.figures(), form)
                return Answer(HTTPStatus.OK, page, form.value)
            case "/healthz":
                return Answer.of_text(HTTPStatus.OK, "ok")
            case "/readyz":
                ready, state = self._service.readiness()
                status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
                return Answer.of_text(status, state)
            case _:
                return Answer.of_text(
                    HTTPStatus.NOT_FOUND, "not found; the pages are /metrics, /healthz and /readyz"
                )
