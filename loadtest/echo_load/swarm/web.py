"""Additions to locust's web page: tabs with microseconds and the verdict, and metrics."""

from __future__ import annotations

import io
import json
from argparse import Namespace
from typing import Any, Protocol

from flask import Response, jsonify, request
from prometheus_client.exposition import choose_encoder

from echo_core.errors import EchoswarmError
from echo_load.swarm.histograms import Histograms
from echo_load.swarm.metrics import registry
from echo_load.swarm.microseconds import PERCENTILES, rounded_rows, write_csv
from echo_load.swarm.verdict import verdict_rows

_TAB = "microseconds"
_VERDICT_TAB = "verdict"
_CSV_PATH = "stats/microseconds/csv"
_WIDEST_FIGURE = 20
_VERDICT_FIELDS = (("what", "What"), ("measured", "So far"), ("verdict", "Verdict"))
_FIELDS = (
    ("method", "Type"),
    # By a field called "name" the page would sort, with the row of all requests in front.
    ("request", "Name"),
    ("count", "# Requests"),
    ("mean", "Mean (µs)"),
    *((f"p{one:g}".replace(".", ""), f"{one:g}%ile (µs)") for one in PERCENTILES),
    ("max", "Max (µs)"),
)


class Check(Protocol):
    """A function that raises an `EchoswarmError` if options are invalid."""

    def __call__(self, environment: Any, options: Namespace, *, hosts_needed: bool) -> None:
        """Check the options."""


def extend(web_ui: Any, environment: Any, histograms: Histograms, check: Check) -> None:
    """Add tabs with microseconds and the verdict, `/metrics`, and a check of the form's options.

    Args:
        web_ui: locust's web page.
        environment: environment of locust's master, or of its only process.
        histograms: histograms of that environment.
        check: function that checks the options of the form.
    """
    base = (environment.parsed_options.web_base_path or "").rstrip("/")
    web_ui.template_args |= {
        "extended_tabs": [
            {"title": "Microseconds", "key": _TAB},
            {"title": "Verdict", "key": _VERDICT_TAB},
        ],
        "extended_tables": [
            {"key": tab, "structure": [{"key": key, "title": title} for key, title in fields]}
            for tab, fields in ((_TAB, _FIELDS), (_VERDICT_TAB, _VERDICT_FIELDS))
        ],
        "extended_csv_files": [{"href": _CSV_PATH, "title": "Download microseconds CSV"}],
    }
    metrics = registry(environment, histograms)

    def with_microseconds(response: Response) -> Response:
        if request.path == f"{base}/stats/requests" and response.is_json:
            shown = [
                {field: cell for (field, _), cell in zip(_FIELDS, _sortable(row), strict=True)}
                for row in rounded_rows(histograms)
            ]
            verdict = [
                dict(zip((field for field, _ in _VERDICT_FIELDS), row, strict=True))
                for row in verdict_rows(environment, histograms)
            ]
            stats = [{"key": _TAB, "data": shown}, {"key": _VERDICT_TAB, "data": verdict}]
            data = {**(response.json or {}), "extended_stats": stats}
            response.set_data(json.dumps(data))
        return response

    def refuse_invalid_options() -> Response | None:
        if (request.method, request.path) != ("POST", f"{base}/swarm"):
            return None
        options = Namespace(**{**vars(environment.parsed_options), **request.form})
        try:
            check(environment, options, hosts_needed=True)
        except EchoswarmError as error:
            # The format of locust's own errors.
            return jsonify(success=False, message=str(error), host=environment.host)
        return None

    def serve_metrics() -> Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return Response(encode(metrics), content_type=content_type)

    def serve_csv() -> Response:
        file = io.StringIO()
        write_csv(histograms, file)
        disposition = {"Content-Disposition": "attachment;filename=microseconds.csv"}
        return Response(file.getvalue(), content_type="text/csv", headers=disposition)

    web_ui.app.before_request(refuse_invalid_options)
    web_ui.app.after_request(with_microseconds)
    for path, name, serve in (
        ("metrics", "metrics", serve_metrics),
        (_CSV_PATH, "microseconds_csv", serve_csv),
    ):
        web_ui.app.add_url_rule(f"{base}/{path}", name, web_ui.auth_required_if_enabled(serve))


def _sortable(row: tuple[str, ...]) -> tuple[str, ...]:
    """Return a row with padded figures, so that the page, which sorts text, sorts them by value."""
    return (*row[:2], *(figure.rjust(_WIDEST_FIGURE) for figure in row[2:]))
