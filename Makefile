# Verbs equal CI jobs. Needs Python 3.11 or later and make, nothing else; everything is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
.DEFAULT_GOAL := help
.PHONY: help quickstart check test coverage nightly lowest lint format wheel docs dataset bench clean
# make CONSTRAINTS=/dev/null ... installs the newest packages that pyproject.toml allows.
CONSTRAINTS ?= constraints.txt
# The tests start a hundred interpreters, each of which would compile all modules again.
unexport PYTHONDONTWRITEBYTECODE
EXTRAS := quickstart,sampling,active,select,sevennet,dask,s3,orb,fennol,report,aselmdb,hdf5plugin,parquet,json,deepmd,atompack,pyg,lightning,dev

help:  ## List the verbs.
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "needs Python 3.11 or later; call: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)

# torch first: with the constraint no other package pulls another release of it.
$(VENV)/.quickstart: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --constraint $(CONSTRAINTS) torch
	$(PIP) install --constraint $(CONSTRAINTS) --editable '.[quickstart]'
	@touch $@

$(VENV)/.dev: $(VENV)/.quickstart
	$(PIP) install --constraint $(CONSTRAINTS) --editable '.[$(EXTRAS)]'
	@touch $@

quickstart: $(VENV)/.quickstart  ## Make a small labelled dataset, its store and its release (two to three minutes).
	$(BIN)/mlffstore run recipes/quickstart.yaml

# One thread each, and one process more than two cores, since tests wait for disks and children; the longest files start first.
test: $(VENV)/.dev  ## Run the tests.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

# Python 3.12 and later count lines at hardly any cost; before, the tests take half as long again.
coverage: $(VENV)/.dev  ## Run the tests with coverage; it must be at least that of pyproject.toml.
	rm -f .coverage .coverage.*
	COVERAGE_CORE=$$($(BIN)/python -c 'import sys; print("sysmon" if sys.version_info >= (3, 12) else "ctrace")') \
	$(BIN)/coverage run -m pytest --numprocesses 2 --dist loadfile
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

nightly: $(VENV)/.dev  ## Run all tests, the slow ones too.
	$(BIN)/python -m pytest --run-slow

lowest: $(BIN)/python  ## Run the tests with the oldest packages that pyproject.toml allows, in .venv-lowest.
	$(PIP) install uv
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-lowest
	$(BIN)/uv pip install --quiet --python .venv-lowest --resolution lowest-direct --editable '.[$(EXTRAS)]'
	.venv-lowest/bin/python -m pytest --numprocesses 2 --dist loadfile

lint: $(VENV)/.dev  ## Check style, types, who imports whom, and declared packages.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .

check: lint  ## Check a change in about two minutes: lint, and the tests of the core.
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -q tests/core tests/architecture

format: $(VENV)/.dev  ## Mend style.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(VENV)/.dev  ## Build sdist and wheel, and import all four packages from the wheel in an empty folder.
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python tests/check_wheel.py dist

docs: $(BIN)/python  ## Build the documentation into site/.
	$(PIP) install --constraint $(CONSTRAINTS) --editable '.[docs]'
	$(BIN)/mkdocs build --strict

dataset: $(VENV)/.dev  ## Make the dataset of 120,000 samples, its release and its page (hours; it goes on where it stopped).
	PATH="$(abspath $(BIN)):$$PATH" benchmarks/dataset.sh

bench: $(VENV)/.dev  ## Print the storage benchmark beside its peers.
	$(PIP) install --constraint $(CONSTRAINTS) atompack-db rdkit
	$(BIN)/python benchmarks/bench_store.py
	$(BIN)/python benchmarks/bench_append.py

clean:  ## Remove what the other verbs made, but not datasets.
	rm -rf $(VENV) .venv-lowest dist build site .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis
