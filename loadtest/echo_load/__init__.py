"""The load tester of echo services.

From Python:

    from echo_load import Plan, run

    if __name__ == "__main__":
        result = run(Plan(targets="tcp://127.0.0.1:50007", connections=1000, duration="10s"))
        print(result.passed, result.latency_us.response.p99)
"""

from echo_core.lazy import attributes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from echo_client.socket_options import BufferSizes
    from echo_client.tls import TlsOptions
    from echo_load.errors import (
        AdminError,
        ClientError,
        EchoswarmError,
        GeneratorError,
        IncomparableError,
        InvalidValueError,
        LoadError,
        LocalServerError,
        OutputError,
        ResultFileError,
        TargetError,
        TlsFileError,
        UnresolvedError,
    )
    from echo_load.limits.capacity import find_capacity
    from echo_load.limits.capacity_plan import CapacityPlan
    from echo_load.limits.idle import find_idle
    from echo_load.limits.idle_plan import IdlePlan
    from echo_load.limits.watch import WatchPlan, watch
    from echo_load.plan.plan import Plan
    from echo_load.plan.stages import StagePlan, parse_stages
    from echo_load.plan.thresholds import ThresholdResult
    from echo_load.report.saving import (
        save_csv,
        save_html,
        save_junit,
        save_markdown,
        save_result,
    )
    from echo_load.results.capacity import CapacityResult, CapacityStep
    from echo_load.results.compare import compare
    from echo_load.results.comparison import Change, Comparison
    from echo_load.results.evidence import Bytes, Evidence, FirstFailure, WrongReply
    from echo_load.results.idle import IdleResult, IdleRung
    from echo_load.results.reconciliation import Reconciliation
    from echo_load.results.result import (
        GeneratorResult,
        Latencies,
        Latency,
        Machine,
        Repeat,
        Result,
        Second,
        Spread,
        StageResult,
        TargetResult,
        Totals,
        load_result,
    )
    from echo_load.results.watch import Outage, Pause, TargetWatch, WatchResult
    from echo_load.runner.controller import Interruption, run
    from echo_load.runner.observer import Observer, Progress

__all__ = [
    "AdminError",
    "BufferSizes",
    "Bytes",
    "CapacityPlan",
    "CapacityResult",
    "CapacityStep",
    "Change",
    "ClientError",
    "Comparison",
    "EchoswarmError",
    "Evidence",
    "FirstFailure",
    "GeneratorError",
    "GeneratorResult",
    "IdlePlan",
    "IdleResult",
    "IdleRung",
    "IncomparableError",
    "Interruption",
    "InvalidValueError",
    "Latencies",
    "Latency",
    "LoadError",
    "LocalServerError",
    "Machine",
    "Observer",
    "Outage",
    "OutputError",
    "Pause",
    "Plan",
    "Progress",
    "Reconciliation",
    "Repeat",
    "Result",
    "ResultFileError",
    "Second",
    "Spread",
    "StagePlan",
    "StageResult",
    "TargetError",
    "TargetResult",
    "TargetWatch",
    "ThresholdResult",
    "TlsFileError",
    "TlsOptions",
    "Totals",
    "UnresolvedError",
    "WatchPlan",
    "WatchResult",
    "WrongReply",
    "compare",
    "find_capacity",
    "find_idle",
    "load_result",
    "parse_stages",
    "run",
    "save_csv",
    "save_html",
    "save_junit",
    "save_markdown",
    "save_result",
    "watch",
]

_MODULES = {
    "errors": (
        *("AdminError", "ClientError", "EchoswarmError", "GeneratorError", "IncomparableError"),
        *("InvalidValueError", "LoadError", "LocalServerError", "OutputError", "ResultFileError"),
        *("TargetError", "TlsFileError", "UnresolvedError"),
    ),
    "limits.capacity": ("find_capacity",),
    "limits.capacity_plan": ("CapacityPlan",),
    "limits.idle": ("find_idle",),
    "limits.idle_plan": ("IdlePlan",),
    "limits.watch": ("WatchPlan", "watch"),
    "plan.plan": ("Plan", "TlsOptions"),
    "plan.stages": ("StagePlan", "parse_stages"),
    "plan.thresholds": ("ThresholdResult",),
    "report.saving": ("save_csv", "save_html", "save_junit", "save_markdown", "save_result"),
    "results.capacity": ("CapacityResult", "CapacityStep"),
    "results.compare": ("compare",),
    "results.comparison": ("Change", "Comparison"),
    "results.evidence": ("Bytes", "Evidence", "FirstFailure", "WrongReply"),
    "results.idle": ("IdleResult", "IdleRung"),
    "results.reconciliation": ("Reconciliation",),
    "results.result": (
        *("BufferSizes", "GeneratorResult", "Latencies", "Latency", "Machine", "Repeat"),
        *("Result", "Second", "Spread", "StageResult", "TargetResult", "Totals", "load_result"),
    ),
    "results.watch": ("Outage", "Pause", "TargetWatch", "WatchResult"),
    "runner.controller": ("Interruption", "run"),
    "runner.observer": ("Observer", "Progress"),
}

# Hidden from type checkers, which would accept any name.
if not TYPE_CHECKING:
    __getattr__ = attributes(
        __name__,
        {name: module for module, names in _MODULES.items() for name in names},
        extra="load",
    )


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
