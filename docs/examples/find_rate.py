"""Find the highest rate at which an echo service keeps its p99 below a limit, by bisection.

python docs/examples/find_rate.py tcp://127.0.0.1:50007
"""

import sys

from echo_load import Plan, run

LIMIT_MS = 5
LEAST, MOST, STEPS, SECONDS = 500, 50_000, 6, 2


def keeps_its_limit(target: str, rate: int) -> bool:
    """Test one rate, and print what came of it."""
    plan = Plan(
        targets=target,
        connections=50,
        rate=rate,
        duration=SECONDS,
        thresholds=f"p99<{LIMIT_MS}ms",
    )
    result = run(plan)
    mark = "  generator-bound" if result.generator.bound else ""
    print(
        f"{rate:>7,} msg/s  p99 {result.latency_us.response.p99:>9,.0f} µs  {result.verdict}{mark}"
    )
    return result.passed


def main() -> None:
    """Halve the interval a few times."""
    least, most = LEAST, MOST
    for _ in range(STEPS):
        rate = (least + most) // 2
        if keeps_its_limit(sys.argv[1], rate):
            least = rate
        else:
            most = rate
    print(f"the limit is between {least:,} and {most:,} msg/s")


if __name__ == "__main__":
    main()
