"""Results in one line."""

from __future__ import annotations

import msgspec

from echo_load.results.result import Result
from echo_load.results.short import shortened
from support.capacities import CAPACITY
from support.processes import StartServer, loaded


def test_a_result_is_shown_in_one_short_line(result: Result) -> None:
    shown = repr(msgspec.structs.replace(result, generator=without_bound(result)))
    response = result.latency_us.response
    assert response.count == 100
    assert shown.startswith("<Result of run: passed; 100 messages, ")
    assert shown.endswith(", no failures>")
    assert " msg/s, p50 " in shown
    assert ", p99 " in shown
    assert str(result) == repr(result)


def without_bound(result: Result) -> object:
    return msgspec.structs.replace(result.generator, bound=False)


def test_failures_and_reasons_are_shown(start_server: StartServer) -> None:
    server = start_server("--fault", "corrupt@100%")
    _, failed = loaded("run", server.url, "-n", "20", "-c", "2", "--threshold", "p50>9s")
    shown = repr(failed)
    assert shown.startswith("<Result of run: failed; 20 messages, ")
    assert ", 20 failures (corrupt 20); " in shown
    assert "2 connections: 20 replies were not what was sent (corrupt 20)" in shown
    assert len(shown) <= 240


def test_a_long_line_is_cut_to_what_pytest_shows(result: Result) -> None:
    shown = repr(msgspec.structs.replace(result, reasons=["x" * 1000]))
    assert len(shown) == 240
    assert shown.endswith("xxx...>")
    assert shown.startswith("<Result of run: passed; 100 messages")
    assert shortened("x" * 238) == f"<{'x' * 238}>"
    assert shortened("x" * 239) == f"<{'x' * 235}...>"


def test_a_generator_that_was_the_limit_is_mentioned(result: Result) -> None:
    for bound in (True, False):
        generator = msgspec.structs.replace(result.generator, bound=bound)
        shown = repr(msgspec.structs.replace(result, generator=generator))
        assert ("; generator-bound" in shown) is bound


def test_an_answer_is_shown_in_place_of_figures(result: Result) -> None:
    answer = "capacity 4,230 msg/s; at 4,400 msg/s: p99<5ms was crossed: 12 ms"
    found = msgspec.structs.replace(result, command="capacity", capacity=CAPACITY)
    assert repr(found).startswith(f"<Result of capacity: passed; {answer}")
    assert repr(CAPACITY) == f"<CapacityResult: {answer}>"


def test_parts_of_a_result_are_short(result: Result) -> None:
    for part in (result.latency_us.response, result.spread, *result.stages):
        shown = repr(part)
        assert len(shown) <= 240
        assert shown.startswith(f"<{type(part).__name__} ")
    assert len(repr(result.latency_us)) < 800
    empty = msgspec.structs.replace(result.latency_us.response, count=0)
    assert repr(empty) == "<Latency: nothing was measured>"
