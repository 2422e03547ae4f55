# Each target sets up what it needs: a fresh clone, make and Python >= 3.11 are enough.
.PHONY: quickstart test test-aot lint format clean
.DEFAULT_GOAL := quickstart

VENV := .venv
READY := $(VENV)/.ready
READY_FOR_TESTS := $(VENV)/.ready-for-tests

quickstart: $(READY)
	@echo "make: running the quickstart (about 8 minutes on two CPU cores); see runs/quickstart"
	@$(VENV)/bin/glm-rlhf quickstart

# Processes that run the tests; each takes up to 8 GB.
WORKERS ?= 2

test: $(READY_FOR_TESTS)
	@echo "make: running the tests (half an hour on two CPU cores at first, then less: programs are cached)"
	@$(VENV)/bin/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test-aot: $(READY_FOR_TESTS)
	@echo "make: compiling for TPU slices, without one (half an hour on two CPU cores)"
	@$(PIP_INSTALL) -e '.[tpu-plan]'
	@$(VENV)/bin/python -m pytest -m aot tests/aot

lint: $(READY_FOR_TESTS)
	@echo "make: checking format and rules with ruff"
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .

format: $(READY_FOR_TESTS)
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

clean:
	rm -rf $(VENV) .cache build *.egg-info

# The first that is 3.11 or newer and can make environments; `make PYTHON=... quickstart` overrides.
PYTHON ?= $(shell for python in python3.12 python3.11 python3 python python3.13 python3.14; do \
	$$python -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' \
	>/dev/null 2>&1 && echo $$python && break; done)

PIP_INSTALL = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "make: found no Python >= 3.11 with venv; install one, or say \
	where it is: make PYTHON=/path/to/python3.12 quickstart" >&2; exit 1; }
	@echo "make: making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

$(READY): pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "make: installing the package and what it needs, once (a minute or more)"
	@$(PIP_INSTALL) -e .
	@touch $@

$(READY_FOR_TESTS): $(READY)
	@echo "make: installing what the tests need, once"
	@$(PIP_INSTALL) -e '.[test]'
	@touch $@
