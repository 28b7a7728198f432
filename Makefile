# One command for each task; the first one makes `.venv` and installs what it needs.
#
#   make demo         a real Dagster run of an asyncio job, shown step by step
#   make test         the tests
#   make test-stores  the tests of object stores, with all emulators (npm) and with many logs; minutes
#   make check        formatter, linter, type checkers, docs, tests: what CI runs
#   make docs         the documentation, as HTML in docs/_build/html
#
# `make PYTHON=python3.13 ...` picks the interpreter, `make test ARGS="-k file"` passes arguments on.

PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export UV_SYSTEM_CERTS := 1

.DEFAULT_GOAL := help
.NOTPARALLEL:
.SUFFIXES:
.PHONY: help demo test test-stores test-stores-here check bench soak docs screenshots clean lint format types dist

help:
	@sed -n 's/^#  *\(make [a-z].*\)/\1/p' $(firstword $(MAKEFILE_LIST))

demo: $(STAMPS)/demo
	@$(BIN)/python examples/demo/run.py $(ARGS)

# What measures ratios of time runs first and alone; the rest shares the cores.
test: $(STAMPS)/test
	$(BIN)/python -m pytest -m timing -q $(ARGS) || test $$? -eq 5 # none selected
	$(BIN)/python -m pytest -m "not timing and not heavy" -n auto $(ARGS)

# In environments of its own: Dagster's libraries for the clouds may need an older Dagster.
test-stores:
	$(MAKE) VENV=$(VENV)-stores test-stores-here

test-stores-here: $(STAMPS)/test-stores $(VENV)/node_modules/azurite $(VENV)-prefect
	$(BIN)/python -m pytest tests/test_docs.py -k object-stores
	DAGSTERPIPES_AZURITE=$(VENV)/node_modules/azurite/dist/src/blob/main.js \
	DAGSTERPIPES_PREFECT=$(CURDIR)/$(VENV)-prefect/bin/python \
	    $(BIN)/python -m pytest tests/integration/stores -n auto $(ARGS)

$(VENV)/node_modules/azurite:
	npm install --silent --prefix $(VENV) azurite@3.35.0

# Its requirements do not fit Dagster's.
$(VENV)-prefect:
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet -e . "prefect>=3" || { rm -rf $@; false; }

# The tests come last, so that their summary is the end of the output.
check: lint types docs
	$(MAKE) test

lint: $(STAMPS)/lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: $(STAMPS)/lint
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: $(STAMPS)/lint $(STAMPS)/test
	$(BIN)/mypy
	$(BIN)/pyright

docs: $(STAMPS)/docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

bench: $(STAMPS)/test $(STAMPS)/bench
	$(BIN)/python benchmarks/run.py $(ARGS)

soak: $(STAMPS)/test
	$(BIN)/python tests/soak/soak.py $(ARGS)

# Needs Chromium; installs Debian's when run as root.
screenshots: $(STAMPS)/screenshots
	$(BIN)/python tools/screenshots.py $(ARGS)

# The wheel and the sdist, each tried in an empty environment.
dist: $(STAMPS)/dist
	$(BIN)/python tests/packaging/try_dist.py $(ARGS)

clean:
	rm -rf $(VENV) $(VENV)-stores $(VENV)-stores-prefect build dist docs/_build .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp for each extra of pyproject.toml: installed again only when that file changes.
# uv is for speed only; where it cannot be had, or cannot reach the index, pip does the work.
$(STAMPS)/%: pyproject.toml | $(STAMPS)
	@echo "installing dagsterpipes[$*] into $(VENV)"
	@{ test -x $(BIN)/uv && $(BIN)/uv pip install --quiet --python $(BIN)/python -e '.[$*]'; } \
	    || $(BIN)/python -m pip install --quiet -e '.[$*]'
	@touch $@

$(STAMPS):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or later is needed: make PYTHON=...")'
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet uv \
	    || $(BIN)/python -m pip install --quiet --upgrade pip
	@mkdir $(STAMPS)
