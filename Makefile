# Hansa: `make help` lists what there is. Everything happens in .venv; nothing outside is changed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python -m
PIP := $(RUN) pip install -qq --disable-pip-version-check -c constraints.txt

# A stamp says which set of packages was installed for which pyproject.toml and constraints.txt.
NEEDS := pyproject.toml constraints.txt
ALL := $(VENV)/.installed-all
LIGHT := $(VENV)/.installed-light

# Without its Python (removed, or another version since) an environment is made anew, with all in it.
$(shell test -x $(BIN)/python || rm -f $(ALL) $(LIGHT))

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo test check format soak bench proto clean

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

install: $(ALL)  ## everything that development needs, into .venv

demo: $(LIGHT)  ## a whole federation on this machine; installs only what it needs
	@$(BIN)/hansa demo $(ARGS)

test: check  ## all checks, then all tests; the last line is pytest's
	@$(RUN) pytest -n 2 --dist loadgroup -m "not soak" $(ARGS)

check: $(ALL)  ## format, lint, types, import rules, documentation; all of them, whatever fails
	@failed=; try() { what=$$1; shift; "$$@" || failed="$$failed, $$what"; }; \
	quiet() { said=$$("$$@" 2>&1) || { echo "$$said"; return 1; }; }; \
	try "format (run: make format)" $(RUN) ruff format --check --quiet .; \
	try lint $(RUN) ruff check --quiet .; \
	try types $(RUN) mypy --no-error-summary; \
	try imports quiet $(BIN)/lint-imports --no-logo; \
	try docs $(RUN) pytest -q tests/docs; \
	if [ -n "$$failed" ]; then echo "failed: $${failed#, }" >&2; exit 1; fi

format: $(ALL)  ## write the code in its one format
	@$(RUN) ruff format --quiet .
	@$(RUN) ruff check --quiet --fix .

soak: $(ALL)  ## the long form of the suites
	@$(RUN) pytest -n 2 -m soak $(ARGS)

bench: $(ALL)  ## all benchmarks, one JSON object each; ARGS=--quick for the short form
	@for file in $(filter-out bench/peer_% bench/flower_%,$(wildcard bench/*.py)); do \
	  $(BIN)/python "$$file" --json $(ARGS); done

proto: $(ALL)  ## the Python side of proto/hansa/v1, after it was changed
	@rm -rf build/proto && mkdir -p build/proto
	@$(RUN) grpc_tools.protoc -I proto --python_out=build/proto --pyi_out=build/proto \
	  proto/hansa/v1/*.proto
	@cp build/proto/hansa/v1/*_pb2.py build/proto/hansa/v1/*_pb2.pyi src/hansa/wire/v1/

clean:  ## what checks, tests and builds leave behind; .venv stays
	@rm -rf build dist .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage
	@find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

$(ALL): $(NEEDS) | $(BIN)/python
	@echo "installing everything that development needs into $(VENV)"
	@$(PIP) -e '.[dev]'
	@touch $@ $(LIGHT)

# After `make install` there is nothing left to install for the demo.
$(LIGHT): $(NEEDS) | $(BIN)/python
	@if [ -e $(ALL) ] && [ -z "$$(find $(NEEDS) -newer $(ALL))" ]; then touch $@; exit 0; fi; \
	  echo "installing what the demo needs into $(VENV)"; \
	  $(PIP) -e '.[coordinator]'; \
	  touch $@

$(BIN)/python:
	@command -v $(PYTHON) > /dev/null \
	  || { echo "$(PYTHON) is missing. Install Python 3.11 to 3.13, or name it: make PYTHON=..." >&2; \
	       exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "Hansa needs Python 3.11 to 3.13, this is $$($(PYTHON) -V). Name another one:" \
	            "make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null \
	  || { echo "$(PYTHON) cannot make virtual environments. Install them:" \
	            "apt-get install python3-venv (Debian, Ubuntu)" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV)
