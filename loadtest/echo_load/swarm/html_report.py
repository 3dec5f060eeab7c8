"""An addition to locust's HTML report: the verdict and the response times in microseconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import locust.html
import locust.main
import locust.web
from jinja2 import Environment

from echo_load.swarm.histograms import histograms_of
from echo_load.swarm.microseconds import PERCENTILES, rounded_rows
from echo_load.swarm.verdict import verdict_rows

# The element in which locust renders its own report.
_ROOT = '<div id="root">'
_TIMES = ("Type", "Name", "# Requests", "Mean", *(f"{one:g}%ile" for one in PERCENTILES), "Max")
_VERDICT = ("What", "Measured", "Verdict")
_BAD = frozenset({"crossed", "failed", "the limit"})
_SECTION = """
<style>
  .echo { font-family: Roboto, Helvetica, Arial, sans-serif; font-size: 0.875rem; line-height: 1.43;
    max-width: 1200px; margin: 0 auto; padding: 16px 24px 0; color: {{ colour }}; }
  .echo h2 { font-size: 2.125rem; font-weight: 400; margin: 16px 0 8px; }
  .echo div { overflow-x: auto; }
  .echo table { border-collapse: collapse; width: 100%; }
  .echo th, .echo td { border-bottom: 1px solid {{ line }}; padding: 6px 16px; text-align: left;
    white-space: nowrap; }
  .echo th { font-weight: 500; }
  .echo .figure { text-align: right; font-variant-numeric: tabular-nums; }
  .echo .bad { color: {{ bad }}; font-weight: 500; }
</style>
<section class="echo">
{% for title, head, rows, texts in tables if rows -%}
  <h2>{{ title }}</h2>
  <div><table>
    <thead><tr>
      {% for cell in head %}
      <th{% if loop.index > texts %} class="figure"{% endif %}>{{ cell }}</th>
      {% endfor %}
    </tr></thead>
    <tbody>
      {% for row in rows %}
      <tr>
        {% for cell in row %}
        <td class="{{ 'figure' if loop.index > texts else 'bad' if cell in bads }}">{{ cell }}</td>
        {% endfor %}
      </tr>
      {% endfor %}
    </tbody>
  </table></div>
{% endfor %}
</section>
"""


def extend_html_report() -> None:
    """Add the verdict and the microseconds to the HTML reports of `--html` and of the web page."""
    report: Callable[[Any, bool, str], str] = locust.html.get_html_report

    def extended(environment: Any, show_download_link: bool = True, theme: str = "") -> str:
        page = report(environment, show_download_link, theme)
        before, root, after = page.rpartition(_ROOT)
        return before + _section(environment, dark=theme == "dark") + root + after

    for module in (locust.main, locust.web):
        vars(module)["get_html_report"] = extended


def _section(environment: Any, *, dark: bool) -> str:
    histograms = histograms_of(environment)
    tables: list[tuple[str, Sequence[str], Sequence[Sequence[str]], int]] = [
        ("Verdict", _VERDICT, verdict_rows(environment, histograms), len(_VERDICT)),
        ("Response times in microseconds", _TIMES, rounded_rows(histograms), 2),
    ]
    return (
        Environment(autoescape=True)
        .from_string(_SECTION)
        .render(
            tables=tables,
            bads=_BAD,
            colour="#ffffff" if dark else "#000000de",
            line="#515151" if dark else "#e0e0e0",
            bad="#ff8a80" if dark else "#b71c1c",
        )
    )
