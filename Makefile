# Two commands need nothing but python >= 3.10, git and make: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
INSTALLED_TEST := $(VENV)/.installed-test
INSTALLED_PEERS := $(VENV)/.installed-peers
INSTALLED_DOCS := $(VENV)/.installed-docs

.PHONY: help demo test coverage test-all lint format docs clean

help:
	@echo "make demo      make demo videos, pretrain, fine-tune with and without it, test, print a table, write a report"
	@echo "make test      run the quick tests"
	@echo "make coverage  run the quick tests and count the lines that they reach, half as long again"
	@echo "make test-all  run the slow tests too, some of them against the published package"
	@echo "make lint      ruff and mypy"
	@echo "make format    let ruff format the code"
	@echo "make docs      build the docs as a site: site/index.html"
	@echo "make clean     remove .venv, the site and the demo's output"

demo: $(INSTALLED)
	$(BIN)/python tools/demo.py

# One thread: the models of the tests are too small for more. Files side by side, but no more than four:
# each process holds PyTorch. The order of the files is that of tests/conftest.py.
QUICK_TESTS = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile \
	--no-loadscope-reorder

test: $(INSTALLED_TEST)
	$(QUICK_TESTS)

coverage: $(INSTALLED_TEST)
	$(QUICK_TESTS) --cov --cov-report=term

test-all: $(INSTALLED_PEERS)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not gpu" -o timeout=3600 --cov --cov-report=term

lint: $(INSTALLED_TEST)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED_TEST)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Warnings are errors; with --quiet they would not be counted. The variable silences a notice on what
# comes after mkdocs 1.
docs: $(INSTALLED_DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "open site/index.html"

clean:
	rm -rf $(VENV) demo site

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and f"python >= 3.10 is needed, got {sys.version.split()[0]}: try make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

# A stamp that is newer than what says what to install: the second call does nothing.
$(INSTALLED): pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	@touch $@

$(INSTALLED_TEST): pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[test]"
	@touch $@ $(INSTALLED)

$(INSTALLED_PEERS): pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[test,peers,export,hub,browser,serve]"
	@touch $@ $(INSTALLED) $(INSTALLED_TEST)

$(INSTALLED_DOCS): pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[docs]"
	@touch $@ $(INSTALLED)
