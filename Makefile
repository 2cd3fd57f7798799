# Every target sets up what it needs: a virtual environment in .venv with the project installed.
# The first Python of 3.11 or later that runs; say PYTHON=... for another.
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN = $(VENV)/bin
WORKERS ?= 2

.PHONY: help demo test test-all lint clean

help:  ## show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/'

demo: $(VENV)/.ready  ## the study in small: 12 methods, 5 seeds, single tasks, static weights, a report
	$(BIN)/python -m experiments demo

test: $(VENV)/.ready-dev  ## the suite, in minutes
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not slow"

test-all: $(VENV)/.ready-dev  ## the suite with what is slow
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

lint: $(VENV)/.ready-dev  ## style and types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

$(VENV)/.ready: pyproject.toml
	@test -n "$(PYTHON)" || { echo "jmtl needs Python 3.11 or later: make PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

clean:  ## remove the virtual environment and caches; runs and data stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis
