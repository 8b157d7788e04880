# make install   .venv with the llavar command (again only when pyproject.toml or constraints.txt change)
# make demo      the whole system on two cores, ending in runs/demo/report.html;  make demo ARGS="--images DIR"
# make test      everything that CI checks: lint, types, layers, tests
# make peers     .peers/trl and .peers/factory: stock trainers for benchmarks/train.py, an environment each
#
# Variables
#   PYTHON=python3.12   the interpreter that .venv is made from (3.11 or later)
#   TORCH=auto          which build of torch: `auto` is PyPI's where nvidia-smi lists a GPU, else the CPU build.
#                       Anything else goes to pip as it stands, for example
#                         make install TORCH=torch
#                         make install TORCH="torch --index-url https://download.pytorch.org/whl/cu130"

PYTHON ?= python3
TORCH ?= auto
ARGS ?=

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
BIN := .venv/bin
PEERS := .peers
STAMP := .venv/.installed
QUIETLY := -m pip install --quiet --disable-pip-version-check
PIP := $(BIN)/python $(QUIETLY) -c constraints.txt
TORCH_VERSION := $(shell sed -n 's/^torch==//p' constraints.txt)
CPU_INDEX := https://download.pytorch.org/whl/cpu

.PHONY: install demo test test-half test-rest lint peers clean
.DELETE_ON_ERROR:

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "llavar needs Python 3.11 or later, but '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || true); name another one: make install PYTHON=python3.12" >&2; exit 1; }
	@echo "making .venv (torch first; about two minutes)"
	@$(PYTHON) -m venv .venv
	@# torch first and by itself: a plain requirement would bring gigabytes of CUDA to a machine without a GPU.
	@if [ "$(TORCH)" != auto ]; then \
	    $(PIP) $(TORCH); \
	elif [ "$$(uname -s)" != Linux ] || nvidia-smi -L >/dev/null 2>&1; then \
	    $(PIP) "torch==$(TORCH_VERSION)"; \
	elif $(PIP) --dry-run --no-deps "torch==$(TORCH_VERSION)+cpu" >/dev/null 2>&1; then \
	    $(PIP) "torch==$(TORCH_VERSION)+cpu"; \
	else \
	    $(PIP) --extra-index-url $(CPU_INDEX) "torch==$(TORCH_VERSION)+cpu" || \
	    { echo "no CPU build of torch was found at $(CPU_INDEX); taking the larger default build" >&2; \
	      $(PIP) "torch==$(TORCH_VERSION)"; }; \
	fi
	@$(PIP) -e '.[ocr,serve,dev]'
	@touch $(STAMP)
	@echo "installed: try $(BIN)/llavar --help"

demo: install
	$(BIN)/llavar demo $(ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

# Two processes of one thread each: on two cores half the time, and threads that wait for each other are the slowest.
HALF := tests/corpus tests/models tests/train
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -p no:cacheprovider

test: lint
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target test-half test-rest

test-half:
	$(PYTEST) $(HALF)

test-rest:
	$(PYTEST) tests $(HALF:%=--ignore=%)

# Each peer pins other versions of the same libraries, so each has an environment.
peers: $(PEERS)/trl/.installed $(PEERS)/factory/.installed

$(PEERS)/trl/.installed: PACKAGES := trl pillow
$(PEERS)/factory/.installed: PACKAGES := llamafactory
$(PEERS)/%/.installed: benchmarks/constraints-%.txt | $(STAMP)
	@echo "making $(@D) ($(PACKAGES); some minutes)"
	@$(BIN)/python -m venv $(@D)
	@# The build of torch that .venv has, first and by itself.
	@torch="torch==$$($(BIN)/python -c 'from importlib.metadata import version; print(version("torch"))')"; \
	$(@D)/bin/python $(QUIETLY) "$$torch" || $(@D)/bin/python $(QUIETLY) --extra-index-url $(CPU_INDEX) "$$torch"
	@$(@D)/bin/python $(QUIETLY) -c $< $(PACKAGES)
	@# PyPI has them for CUDA alone; beside another build of torch they cannot be imported, and break what tries.
	@for name in torchvision torchaudio; do \
	    $(@D)/bin/python -c "import $$name" 2>/dev/null || $(@D)/bin/python -m pip uninstall -qq --yes $$name; \
	done
	@touch $@

# What commands made, but never runs/: it holds results.
clean:
	rm -rf .venv build dist src/*.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
