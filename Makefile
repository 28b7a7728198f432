# One command for each task; the first one makes `.venv` and installs what it needs.
#
#   make demo         a real Dagster run of an asyncio job, shown step by step
#   make test         the tests
#   make test-stores  the tests of object stores, with all emulators (npm) and with many logs; minutes
#   make check        formatter, linter, type checkers, docs, tests: what CI runs
#   make test-pythons            the tests that differ, with every Python from 3.10 that is found
#   make test-minimum            with the lowest versions of all dependencies
#   make test-dagster-versions   the tests of Dagster's side, with the oldest Dagster and each minor since
#   make test-dagster-long       100 random kills of durable jobs, 20,000 mutated messages
#   make test-engines          workers of Dask, Ray and Spark (which needs Java); minutes
#   make test-postgres           the same with Postgres; needs Debian's package "postgresql"
#   make prove        every call fails, every schedule of short histories; LENGTH=10 makes it longer
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
.PHONY: help demo test test-stores test-stores-here test-slow test-pythons test-python test-minimum test-dagster-versions test-dagster-long test-postgres test-engines check bench soak prove docs screenshots clean lint format types dist

help:
	@sed -n 's/^#  *\(make [a-z].*\)/\1/p' $(firstword $(MAKEFILE_LIST))

demo: $(STAMPS)/demo
	@$(BIN)/python examples/demo/run.py $(ARGS)

# What measures ratios of time runs first and alone; the rest shares the cores.
test: $(STAMPS)/test
	$(BIN)/python -m pytest -m timing -q $(ARGS) || test $$? -eq 5 # none selected
	$(BIN)/python -m pytest -m "not timing and not slow and not heavy" -n auto $(ARGS)

# In environments of its own: Dagster's libraries for the clouds may need an older Dagster.
test-stores:
	$(MAKE) VENV=$(VENV)-stores test-stores-here

test-stores-here: export DAGSTERPIPES_AZURITE = $(abspath $(VENV)/node_modules/azurite/dist/src/blob/main.js)
test-stores-here: $(STAMPS)/test-stores $(VENV)/node_modules/azurite
	$(BIN)/python -m pytest tests/test_docs.py -k "object-stores or databricks or prefect" -n auto $(ARGS)
	$(BIN)/python -m pytest tests/integration/stores -n auto $(ARGS)

$(VENV)/node_modules/azurite:
	npm install --silent --prefix $(VENV) azurite@3.35.0

# What a few tries test in `make test`, with many.
test-slow: $(STAMPS)/test
	$(BIN)/python -m pytest -m slow -n auto $(ARGS)

# With every Python that is found, each in an environment of its own. PYTHONS="python3.12 /path/to/python" picks.
PYTHONS ?= $(foreach minor,10 11 12 13 14 15,python3.$(minor) $(wildcard $(HOME)/.pyenv/versions/3.$(minor).*/bin/python))
test-pythons:
	@set -e; for python in $(PYTHONS); do \
	    version=$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue; \
	    case "$$done" in *" $$version "*) continue;; esac; done="$$done $$version "; \
	    $(MAKE) PYTHON=$$python VENV=.venv/python-$$version test-python; \
	done

# All modules without a warning, and the tests that differ most from one Python to the next.
test-python: $(STAMPS)/test
	$(BIN)/python -W error -X dev -c "import importlib, pkgutil, dagsterpipes; \
	    [importlib.import_module(m.name) for m in pkgutil.walk_packages(dagsterpipes.__path__, 'dagsterpipes.') \
	     if not m.name.startswith('dagsterpipes.dagster') and m.name != 'dagsterpipes.__main__']"
	$(BIN)/python -m pytest -n auto -m "not timing and not slow and not heavy" tests/unit tests/contract \
	    tests/integration/faults tests/integration/test_session_rules.py tests/integration/test_dagster_runs.py $(ARGS)

# The lowest versions that pyproject.toml allows of everything but Dagster, whose versions other tests
# compare, pydantic, which Dagster needs, and pytest's plugin for asyncio, which leaves loops to be collected.
test-minimum: | $(STAMPS)
	$(PYTHON) -m venv --clear $(VENV)-minimum
	$(BIN)/uv pip install --quiet --python $(VENV)-minimum/bin/python --resolution lowest-direct \
	    -e '.[test]' 'dagster>=1.13.20' 'dagster-pipes>=1.13.20' 'pytest-asyncio>=1' 'pydantic>=2.12'
	$(VENV)-minimum/bin/python -m pytest -n auto -m "not timing and not slow and not heavy" \
	    -W ignore::DeprecationWarning -W ignore::pytest.PytestUnraisableExceptionWarning tests/unit tests/contract $(ARGS)

# Each Dagster has an environment of its own. Before 1.10 it forgot to ask for six.
DAGSTER_VERSIONS ?= 1.9 1.10 1.11 1.12 1.13
DAGSTER_OLDEST ?= 1.9.0
test-dagster-versions: $(DAGSTER_VERSIONS:%=test-dagster-%)

test-dagster-%:
	$(MAKE) VENV=.venv/dagster-$* .venv/dagster-$*/stamps/test
	.venv/dagster-$*/bin/python -m pip install --quiet six $(if $(filter $*,$(basename $(DAGSTER_OLDEST))),dagster==$(DAGSTER_OLDEST) dagster-pipes==$(DAGSTER_OLDEST),"dagster==$*.*" "dagster-pipes==$*.*")
	.venv/dagster-$*/bin/python -m pytest -q -n auto -W default tests/integration/dagster_side $(ARGS)

test-dagster-long: $(STAMPS)/test
	DAGSTERPIPES_KILLS=100 DAGSTERPIPES_MUTATIONS=20000 $(BIN)/python -m pytest -q \
	    tests/integration/dagster_side/test_fuzz.py \
	    tests/integration/dagster_side/test_durable.py -k "random_kills or nothing_stops" $(ARGS)

# In an environment of its own: the driver's package wants a Dagster of its own version.
test-postgres:
	$(MAKE) VENV=.venv/postgres .venv/postgres/stamps/postgres
	.venv/postgres/bin/python -m pytest -q tests/integration/dagster_side/test_postgres.py $(ARGS)

# In an environment of its own, as it is large.
test-engines:
	$(MAKE) VENV=.venv/engines .venv/engines/stamps/engines
	.venv/engines/bin/python -m pytest -q tests/engines $(ARGS)

# The tests come last, so that their summary is the end of the output.
# Dagster's side runs with the oldest Dagster too.
check: lint types docs
	$(MAKE) test-dagster-1.9
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

# All of what `make test` runs a part of: see docs/explanation/proof.md.
LENGTH ?= 1
prove: $(STAMPS)/test
	DAGSTERPIPES_PROOF=$(LENGTH) $(BIN)/python -m pytest tests/proof -n auto $(ARGS)

# Needs Chromium; installs Debian's when run as root.
screenshots: $(STAMPS)/screenshots
	$(BIN)/python tools/screenshots.py $(ARGS)
	$(BIN)/python -W ignore tools/screenshots_dagster_side.py $(ARGS)

# The wheel and the sdist, each tried in an empty environment.
dist: $(STAMPS)/dist
	$(BIN)/python tests/packaging/try_dist.py $(ARGS)

clean:
	rm -rf $(VENV) $(VENV)-minimum $(VENV)-stores build dist docs/_build .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
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
