# SPDX-License-Identifier: Apache-2.0
#
#   make demo [IMAGE=…]    a real image: packed, provisioned through the queue, entered, destroyed, pruned
#   make up                a cluster of one node that keeps running: redis, worker, beat, flower
#   make test [ARGS=…]     unit, conformance and integration tests; ARGS go to pytest
#   make check             format, lint, types, imports
#   make format            write the format that `check` wants
#   make bench [BENCH=…]   tests/benchmarks: all of them, or those named (`BENCH="lock prune"`); tables and a plot
#   make chaos             lock, verbs and queue under fire, CHAOS_SECONDS=600 each; prints their ledgers
#   make chaos-queue       the queue alone, beside stock Celery's; ARGS="cases --only provisioner" and the like
#   make clean             remove what these targets made
#
# The tools live in .venv, which is made when it is missing; `make PYTHON=…` says with which Python.

BIN := .venv/bin
INSTALLED := .venv/.installed
CHAOS_SECONDS ?= 600
SOURCES := worker tasks tests
BENCHMARKS := $(patsubst tests/benchmarks/%.py,%,$(filter-out %/__init__.py,$(wildcard tests/benchmarks/[a-z]*.py)))

.PHONY: demo up test check format format-check lint types imports bench chaos chaos-queue packages clean

demo: $(INSTALLED)
	$(BIN)/provisioner demo $(if $(IMAGE),--image '$(IMAGE)')

up: $(INSTALLED)
	$(BIN)/provisioner up

test: $(INSTALLED) packages
	$(BIN)/pytest $(ARGS)

check: format-check lint types imports

format: $(INSTALLED)
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

format-check: $(INSTALLED)
	$(BIN)/ruff format --check $(SOURCES)

lint: $(INSTALLED)
	$(BIN)/ruff check $(SOURCES)

types: $(INSTALLED)
	$(BIN)/mypy

imports: $(INSTALLED)
	$(BIN)/lint-imports

bench: $(INSTALLED) packages
	set -e; for each in $(or $(BENCH),$(BENCHMARKS)); do $(BIN)/python -m tests.benchmarks.$$each $(ARGS); done

chaos: $(INSTALLED) packages
	CHAOS_SECONDS=$(CHAOS_SECONDS) $(BIN)/pytest -s -o python_files='chaos_*.py' tests/integration $(ARGS)
	$(BIN)/python -m tests.integration.chaos.verbs --seconds $(CHAOS_SECONDS)
	$(BIN)/python -m tests.integration.chaos.queue --seconds $(CHAOS_SECONDS)

chaos-queue: $(INSTALLED) packages
	$(BIN)/python -m tests.integration.chaos.queue --seconds $(CHAOS_SECONDS) $(ARGS)

packages:
	.ci/setup packages

$(INSTALLED): pyproject.toml
	PYTHON='$(PYTHON)' .ci/setup python

clean:
	rm -rf .venv *.egg-info build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find $(SOURCES) -name __pycache__ -prune -exec rm -rf {} +
