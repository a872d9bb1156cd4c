# Needs Python 3.11 or newer with pip and venv, make and git; everything else comes from the package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyflue src tests benchmarks examples templates

# No look-up of newer pyright versions while checking.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.PHONY: help demo test check bench format clean

help:
	@echo "make demo    run two workflows, one with an agent, and show their results and journals"
	@echo "make test    the whole test suite"
	@echo "make check   formatting, lint, types, and the arrows between rooms"
	@echo "make bench   measure what PyFlue costs (BENCH=--quick for orientation)"
	@echo "make format  format and fix what can be fixed"
	@echo "make clean   remove everything that was made, the virtual environment too"

demo: $(VENV)/.installed
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash examples/demo.sh

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(PYTEST)

check: $(VENV)/.dev
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks $(BENCH)

format: $(VENV)/.dev
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

clean:
	rm -rf $(VENV) .venv-* .pyflue dist build *.egg-info
	rm -rf .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage*
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp files say what has been installed; a changed pyproject.toml installs again.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit("PyFlue needs Python 3.11 or newer: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.installed: $(VENV)/.made pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.made pyproject.toml
	$(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $@ $(VENV)/.installed
