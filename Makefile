# Everything runs in .venv, which is built from requirements.txt by hash and rebuilt only when that file changes.
PYTHON ?= python3.11
PORT ?= 3000
venv := .venv
packages := $(venv)/.requirements-$(shell cksum < requirements.txt | cut -d' ' -f1)
project := $(venv)/.project-$(shell cksum < pyproject.toml | cut -d' ' -f1)
bench := $(venv)/.bench-$(shell cksum < requirements-bench.txt | cut -d' ' -f1)

.PHONY: help setup demo dev test test-faults lint format bench pictures

help:
	@echo "make demo      run two services on an S3 server of its own and print what they answered"
	@echo "make test      run every test"
	@echo "make test-faults  fuzz every reader (EXAMPLES=2000), kill services by the hundred and write the figures into docs/reliability.md (TRIALS=200)"
	@echo "make dev       keep such a server and the Dagster UI up, on http://127.0.0.1:3000 (PORT=…), until Ctrl-C"
	@echo "make lint      ruff and mypy"
	@echo "make format    let ruff put the code in order"
	@echo "make bench     measure everything and write the tables of benchmarks/README.md (BENCH=name: print one row)"
	@echo "make pictures  take the screenshots of docs/images anew (needs chromium)"
	@echo "make setup     build .venv (the others do it when needed)"

setup: $(project)

demo: $(project)
	@$(venv)/bin/batch-pipeline demo

dev: $(project)
	@$(venv)/bin/batch-pipeline dev --port $(PORT)

test: $(project)
	$(venv)/bin/python -m pytest $(ARGS)

test-faults: $(project)
	FUZZ_EXAMPLES=$(or $(EXAMPLES),2000) $(venv)/bin/python -m pytest batch_pipeline_tests/faults/test_fuzzed.py batch_pipeline_tests/models/test_zip_map.py $(ARGS)
	FAULT_TRIALS=$(or $(TRIALS),200) FAULT_FIGURES=docs/reliability.md $(venv)/bin/python -m pytest batch_pipeline_tests/faults/test_killed*.py batch_pipeline_tests/faults/test_ledger_model.py $(ARGS)

lint: $(project)
	$(venv)/bin/ruff check
	$(venv)/bin/ruff format --check
	$(venv)/bin/mypy

format: $(project)
	$(venv)/bin/ruff check --fix
	$(venv)/bin/ruff format

bench: $(bench)
	$(venv)/bin/python -m benchmarks $(BENCH) $(if $(BENCH),,--markdown benchmarks/README.md) $(ARGS)

pictures: $(project)
	PICTURES=docs/images $(venv)/bin/python -m pytest -m browser

# Ray Data, and what it needs beside requirements.txt.
$(bench): $(project) requirements-bench.txt
	$(venv)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement requirements-bench.txt
	@touch $@

$(packages): requirements.txt
	$(PYTHON) -m venv --clear $(venv)
	$(venv)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.txt
	@touch $@

$(project): $(packages) pyproject.toml
	$(venv)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
