"""Microseconds of a swarm: merged from the workers, and cleared by resets."""

from __future__ import annotations

import json
import sys
from array import array

import numpy as np
import pytest

from echo_load.measure.histogram import LatencyHistogram
from support.processes import run

# Locust monkey-patches the process that imports it, so this code runs in another one.
MERGE = """
import locust, json, sys
import msgpack
from locust.env import Environment
from echo_load.swarm.histograms import histograms_of

samples = json.load(sys.stdin)
workers = [Environment() for _ in samples]
master = Environment()
merged = histograms_of(master)
for environment, times in zip(workers, samples):
    histograms_of(environment)
    for milliseconds in times:
        environment.events.request.fire(
            request_type="TCP", name="message", response_time=milliseconds,
            response_length=64, exception=None,
        )
    environment.events.request.fire(
        request_type="TCP", name="message", response_time=1e4, response_length=0,
        exception=ValueError("failed"),
    )
    # Each reports twice: the second time there is nothing new.
    for _ in range(2):
        data = {}
        environment.events.report_to_master.fire(client_id="w", data=data)
        master.events.worker_report.fire(
            client_id="w", data=msgpack.loads(msgpack.dumps(data), strict_map_key=False)
        )
(key, times), = merged.items()
percentiles = times.percentiles_us([0, 50, 90, 99, 99.9, 100])
before = [list(key), times.count, times.sum_ns, times.max_ns, percentiles]
master.events.reset_stats.fire()
print(json.dumps([before, len(list(merged.items()))]))
"""


def test_merged_percentiles_equal_those_of_one_process() -> None:
    random = np.random.default_rng(5)
    samples = [random.lognormal(-2, 1.5, 5000).tolist() for _ in range(3)]
    ended = run([sys.executable, "-c", MERGE], stdin=json.dumps(samples).encode())
    assert ended.returncode == 0, ended.stderr.decode()
    (key, count, sum_ns, max_ns, percentiles), left = json.loads(ended.stdout)
    alone = LatencyHistogram()
    alone.record(array("q", [int(one * 1e6) for times in samples for one in times]))
    assert (key, count, left) == (["TCP", "message"], 15_000, 0)
    assert (sum_ns, max_ns) == (alone.sum_ns, alone.max_ns)
    assert percentiles == alone.percentiles_us([0, 50, 90, 99, 99.9, 100])


def test_a_histogram_is_packed_without_loss() -> None:
    histogram = LatencyHistogram()
    histogram.record(array("q", [5, 70_000, 70_001, 3_000_000_000]))
    again = LatencyHistogram.unpack(list(histogram.pack()))
    assert again.encode() == histogram.encode()
    assert (again.sum_ns, again.max_ns) == (histogram.sum_ns, histogram.max_ns)
    assert LatencyHistogram.unpack(LatencyHistogram().pack()).count == 0


def test_buckets_are_in_milliseconds() -> None:
    histogram = LatencyHistogram()
    histogram.record(array("q", [70_000, 70_000, 3_000_000]))
    assert [(round(value, 2), count) for value, count in histogram.buckets_ms()] == [
        (0.07, 2),
        (3.0, 1),
    ]


@pytest.mark.parametrize(
    ("milliseconds", "kept"),
    [(0.0, 0.0), (0.012345, 0.0123), (0.5, 0.5), (87.53, 87.5), (1234.5, 1230.0), (99999, 100000)],
)
def test_response_times_keep_three_digits(milliseconds: float, kept: float) -> None:
    code = (
        "import locust; from echo_load.swarm.histograms import bucket;"
        f"print(bucket({milliseconds!r}))"
    )
    assert float(run([sys.executable, "-c", code]).stdout) == kept
