# Each target does its own set-up in .venv; nothing but Python 3.11 and make needs to be there.
#   make demo   register a simulated case with known truth; the result lies in $(DEMO_OUTPUT)
#   make test   lint, types, import contracts, then the tests
#   make lint   the first three of these
#   make bench  accuracy and speed against peers
#   make clean  remove .venv and everything that the targets made

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_OUTPUT ?= demo
PYTEST_OPTIONS ?=
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test lint bench clean

demo: $(VENV)/.ready-demo
	$(BIN)/mmreg demo --output "$(DEMO_OUTPUT)"

test: lint
	PYTHON=$(BIN)/python Testing/run $(PYTEST_OPTIONS)

lint: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.ready-bench
	$(BIN)/python -m benchmarks

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
