"""The load tester of echo services.

From Python:

    from echo_load import Plan, run

    if __name__ == "__main__":
        result = run(Plan(targets=("tcp://127.0.0.1:50007",), connections=1000, duration=10))
        print(result.passed, result.latency_us.response.p99)
"""

from echo_core.lazy import attributes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from echo_load.plan.plan import Plan
    from echo_load.plan.stages import StagePlan, parse_stages
    from echo_load.results.result import Result, load_result
    from echo_load.runner.controller import run

__all__ = ["Plan", "Result", "StagePlan", "load_result", "parse_stages", "run"]

__getattr__ = attributes(
    __name__,
    {
        "Plan": "plan.plan",
        "Result": "results.result",
        "StagePlan": "plan.stages",
        "load_result": "results.result",
        "parse_stages": "plan.stages",
        "run": "runner.controller",
    },
)
