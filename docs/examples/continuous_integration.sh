#!/bin/sh
# A continuous integration job: compares a build with the previous one, and fails if it is worse.
# BASELINE and CANDIDATE are the targets; results and reports are written to the current folder.
#
#     BASELINE=10.0.0.7 CANDIDATE=10.0.0.8 sh docs/examples/continuous_integration.sh
set -eu

load="--rate ${RATE:-2k} -c 20 -d ${DURATION:-4s} --repeat ${REPEATS:-5} --threshold errors<1"
# Unquoted on purpose: these are several arguments.
echo-load run $load -o baseline.json "$BASELINE"
echo-load run $load -o candidate.json "$CANDIDATE"
echo-load report baseline.json candidate.json --html report.html
echo-load compare baseline.json candidate.json --fail-on worse --markdown comparison.md
