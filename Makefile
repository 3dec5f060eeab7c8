# Needs python3 (3.11 or newer, with venv) and make. `make` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install --constraint constraints.txt

.DEFAULT_GOAL := help

.PHONY: help
help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(VENV)/.installed  ## start an echo server and stress it with 100, then 1000 connections
	@$(BIN)/echo-load stress

.PHONY: test
test: $(VENV)/.installed-dev  ## run all tests but the slow ones
	@$(BIN)/pytest -m 'not alone and not slow' --numprocesses 3 --dist worksteal

.PHONY: test-all
test-all: $(VENV)/.installed-dev  ## run all tests
	@$(BIN)/pytest -m 'not alone' --numprocesses 3 --dist worksteal
	@$(BIN)/pytest -m alone

.PHONY: coverage
coverage: $(VENV)/.installed-dev  ## run the tests that are not slow, and show which code they do not reach
	@rm -rf build/coverage && mkdir -p build/coverage
	@$(BIN)/coverage run -m pytest -m 'not (alone or slow or untraced)' --numprocesses 3 --dist worksteal
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

.PHONY: test-rest
test-rest: $(VENV)/.installed-dev  ## run the tests that `make coverage` leaves out
	@$(BIN)/pytest -m '(slow or untraced) and not alone' --numprocesses 5 --dist worksteal
	@$(BIN)/pytest -m alone

.PHONY: test-browser
test-browser: $(VENV)/.installed-browser  ## run the tests that look at pages in Chromium (which they need)
	@$(BIN)/pytest tests/browser

.PHONY: test-containers
test-containers: $(VENV)/.installed-dev  ## build and run the containers (needs root, a Docker engine, docker-compose)
	@$(BIN)/pytest --timeout 600 tests/containers

.PHONY: check
check: $(VENV)/.installed-dev  ## lint and check the types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.PHONY: bench
bench: $(VENV)/.installed-bench  ## measure server and generator against their peers (needs a C compiler)
	@$(BIN)/python tests/benchmarks/server_throughput.py
	@$(BIN)/python tests/benchmarks/admin_scrapes.py
	@$(BIN)/python tests/benchmarks/generator_throughput.py

.PHONY: bench-million
bench-million: $(VENV)/.installed-bench  ## hold up to a million connections (needs 16 GB)
	@$(BIN)/python tests/benchmarks/million_connections.py

.PHONY: bench-capacity
bench-capacity: $(VENV)/.installed-bench  ## compare the answers of echo-load capacity with known limits (half an hour)
	@PYTHONPATH=tests $(BIN)/python tests/benchmarks/capacity_accuracy.py

.PHONY: bench-watch
bench-watch: $(VENV)/.installed-dev  ## compare the outages that echo-load watch finds with the truth (three minutes)
	@PYTHONPATH=tests $(BIN)/python tests/benchmarks/watch_accuracy.py

.PHONY: bench-compare
bench-compare: $(VENV)/.installed-bench  ## measure the files against an earlier revision: make bench-compare REV=main~5
	@$(BIN)/python tests/benchmarks/compare_revisions.py $(REV)

.PHONY: performance
performance: $(VENV)/.installed-bench  ## write the tables and plots of docs/performance.md from build/bench
	@$(BIN)/python docs/make_performance.py --from build/bench

.PHONY: reference
reference: $(VENV)/.installed  ## write docs/options.md anew, the reference of all options
	@$(BIN)/python docs/make_options.py

.PHONY: man
man: $(VENV)/.installed  ## write a manual page for each command to build/man
	@$(BIN)/python docs/make_man.py

.PHONY: clean
clean:  ## remove the virtual environment and all caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage build dist

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; name one with make PYTHON=..."; exit 1; }
	@echo "making $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing echoswarm and what it needs into $(VENV) ..."
	@$(PIP) --editable '.[all]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "installing what the tests need ..."
	@$(PIP) --editable '.[dev]'
	@touch $@

$(VENV)/.installed-browser: $(VENV)/.installed-dev
	@echo "installing what drives the browser ..."
	@$(PIP) --editable '.[browser]'
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed
	@$(PIP) --editable '.[bench]'
	@touch $@
