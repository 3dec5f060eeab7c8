"""The admin page: /metrics for Prometheus, /healthz and /readyz for load balancers.

The supervisor serves it in a thread. The counters are read from memory shared with the workers, so
a scrape costs the workers nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from email.message import Message
from http import HTTPStatus
from typing import Protocol

import structlog

from echo_core.endpoint import NetworkEndpoint
from echo_core.http_server import MAX_CONNECTIONS, HttpServer, Response
from echo_core.standard_streams import announce
from echo_server.config import ServerConfig
from echo_server.errors import ListenError
from echo_server.listeners import bound_endpoint, listen_tcp
from echo_server.metrics.counters import WorkerFigures
from echo_server.metrics.exposition import Format, Metrics

log = structlog.get_logger()

_BACKLOG = 128


class Service(Protocol):
    """The source of the admin page's content; its methods are called from another thread."""

    def readiness(self) -> tuple[bool, str]:
        """Return the readiness, and the state as text.

        The server is ready if all its listeners are served and it neither starts nor drains.
        """

    @property
    def max_connections(self) -> int | None:
        """The maximum number of open connections, over all workers; None for no limit."""

    def figures(self) -> Sequence[WorkerFigures]:
        """Return the figures of all workers, in the order of their slots."""


class AdminServer:
    """The admin page, served by a thread of its own until the process exits.

    Args:
        endpoint: the address to listen on; port 0 stands for any free port.
        config: the settings of the server.
        service: the source of the figures and the readiness.
        descriptors: the number of descriptors that the process may open; the page uses at most a
            quarter of them.

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
        self._metrics = Metrics(config.workers)
        limit = max(1, min(MAX_CONNECTIONS, descriptors // 4))
        self._server = HttpServer(listener, self._respond, log.bind(), max_connections=limit)

    def announce(self) -> None:
        """Print the address of the page to standard output."""
        announce(f"admin http://{self._endpoint.location}")

    def _respond(self, path: str, headers: Message) -> Response:
        match path:
            case "/metrics":
                form = Format.accepted(headers.get("Accept"))
                service = self._service
                page = self._metrics.render(service.figures(), form, service.max_connections)
                return Response(HTTPStatus.OK, page, form.value)
            case "/healthz":
                return Response.of_text(HTTPStatus.OK, "ok")
            case "/readyz":
                ready, state = self._service.readiness()
                status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
                return Response.of_text(status, state)
            case _:
                return Response.of_text(
                    HTTPStatus.NOT_FOUND, "not found; the pages are /metrics, /healthz and /readyz"
                )
