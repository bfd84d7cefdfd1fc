# Each target does its own set-up in .venv; nothing but Python 3.11 and make needs to be there.
#   make demo   register a simulated case with known truth; the result lies in $(DEMO_OUTPUT)
#   make test   lint, types, import contracts, then all tests, with their coverage
#   make check  the quick tier for the inner loop: lint, types, import contracts, the fast tests
#   make lint   the first three of these
#   make bench  accuracy and speed against peers
#   make wheel  build wheel and sdist, and try the wheel in an empty environment; slow, not part of make test
#   make clean  remove .venv and everything that the targets made

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_OUTPUT ?= demo
PYTEST_OPTIONS ?=
# Of the lines of MMRegCore and MMRegSlicerLib, in per cent; less is a failure.
COVERAGE := 90
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test check lint bench wheel clean

demo: $(VENV)/.ready-demo
	$(BIN)/mmreg demo --output "$(DEMO_OUTPUT)"

test: lint
	PYTHON=$(BIN)/python Testing/run --cov --cov-report=term --cov-fail-under=$(COVERAGE) $(PYTEST_OPTIONS)
	Testing/run-torch-free
	PYTHON=$(BIN)/python Testing/run-minimum

check: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "not slow" Testing/Core

lint: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.ready-bench
	$(BIN)/python -m benchmarks

wheel:
	PYTHON="$(PYTHON)" Testing/run-wheel dist

clean:
	rm -rf $(VENV) demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.ready-%: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "setting up $(VENV) for make $*: the first time this downloads about 1 GB"
	$(PIP) --editable '.[$*]'
	@touch $@

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "expected Python 3.10 or newer (3.11 is tested); got none on the PATH" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
