"""An HTML page that needs no network: it contains its scripts and styles."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

import jinja2
from plotly.offline import get_plotlyjs

_PAGE = files(__package__)


def render(
    template: str,
    figures: Mapping[str, Any],
    filters: Mapping[str, Callable[..., Any]],
    **values: object,
) -> bytes:
    """Render a page.

    Args:
        template: text of a jinja2 template, which inserts `style`, `plotly`, `script`, `figures`
            and `policy`, the Content-Security-Policy.
        figures: data and layout of each chart for plotly.js, by the NAME in the id `chart-NAME` of
            its element.
        filters: filters of the template.
        values: variables of the template.
    """
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= filters
    plotly, script = get_plotlyjs(), _read("report.js")
    page: str = environment.from_string(template).render(
        **values,
        figures=figures,
        policy=_policy(plotly, script),
        plotly=plotly,
        style=_read("report.css"),
        script=script,
    )
    return page.lstrip().encode(errors="backslashreplace")


def _policy(*scripts: str) -> str:
    """Return a Content-Security-Policy that allows only these scripts, and no request.

    Inline styles are allowed, because plotly.js uses them.
    """
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _read(name: str) -> str:
    return (_PAGE / name).read_text(encoding="utf-8")
