# One command for each task; the first one makes `.venv` and installs what it needs.
#
#   make demo         a real Dagster run of an asyncio job, shown step by step
#   make test         the tests
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
.PHONY: help demo test test-slow test-minimum check bench soak docs screenshots clean lint format types dist

help:
	@sed -n 's/^#  *\(make [a-z].*\)/\1/p' $(firstword $(MAKEFILE_LIST))

demo: $(STAMPS)/demo
	@$(BIN)/python examples/demo/run.py $(ARGS)

# What measures ratios of time runs first and alone; the rest shares the cores.
test: $(STAMPS)/test
	$(BIN)/python -m pytest -m timing -q $(ARGS) || test $$? -eq 5 # none selected
	$(BIN)/python -m pytest -m "not timing and not slow" -n auto $(ARGS)

# What a few tries test in `make test`, with many.
test-slow: $(STAMPS)/test
	$(BIN)/python -m pytest -m slow -n auto $(ARGS)

# The lowest versions that pyproject.toml allows of everything but Dagster, whose versions other tests
# compare, pydantic, which Dagster needs, and pytest's plugin for asyncio.
test-minimum: | $(STAMPS)
	$(PYTHON) -m venv --clear $(VENV)-minimum
	$(BIN)/uv pip install --quiet --python $(VENV)-minimum/bin/python --resolution lowest-direct \
	    -e '.[test]' 'dagster>=1.13.20' 'dagster-pipes>=1.13.20' 'pytest-asyncio>=1' 'pydantic>=2.12'
	$(VENV)-minimum/bin/python -m pytest -n auto -m "not timing and not slow" \
	    -W ignore::DeprecationWarning tests/unit tests/contract $(ARGS)

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
	rm -rf $(VENV) $(VENV)-minimum build dist docs/_build .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
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
