# The tasks of this repository. Each target installs what it needs into .venv, in the pinned versions of constraints.txt.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help demo test test-unit lint format check bench fuzz pictures compose clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "flavor needs Python 3.11 or newer: make PYTHON=python3.11 ..."; exit 1; }
	@echo "1. a virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)

# Prints a line for each package that pip fetches, because this takes minutes on a slow machine.
$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	@echo "2. flavor and what the demo needs, into $(VENV) (half a minute, on a slow machine or link some minutes)"
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off --constraint constraints.txt \
	    --editable '.[demo]' | awk '/^ *(Collecting|Downloading|Building|Installing|Successfully)/ {print "   " substr($$0, 1, 76); fflush()}'
	@$(BIN)/python -c 'import flavor, matplotlib, sklearn' || { echo "the installation failed: $(BIN)/python -m pip install -e '.[demo]' says why"; exit 1; }
	@touch $@

# Installs torch first and by its exact version, so that pip takes the build that the machine offers. pip would compile
# every file on one core, those of the libraries' own tests too.
$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	@echo "2. torch, into $(VENV) (some hundred megabytes: a minute, on a slow link several)"
	@$(PIP) --no-compile torch==2.13.0
	@echo "3. flavor and what its tests need (about a minute)"
	@$(PIP) --no-compile --editable '.[test]'
	@touch $@ $(VENV)/.demo

$(VENV)/.compiled: $(VENV)/.test
	@$(BIN)/python -m compileall -qq -j 0 -x '/tests/' $(VENV)/lib || true  # a library may ship a template
	@touch $@

demo: $(VENV)/.demo  ## Federate handwritten digits over three sites, on this machine
	@echo "flavor demo: three sites, 40 rounds, about half a minute"
	@$(BIN)/flavor demo

# hundreds of processes import flavor: without their bytecode each would compile it first
test test-unit: export PYTHONDONTWRITEBYTECODE =

# Eight processes for two cores: the tests wait two thirds of their time. More than ten leave a cold start too little.
test: $(VENV)/.compiled  ## Run all tests
	@echo "all tests: about ten minutes on two cores"
	@$(BIN)/python tests/precompile.py
	@$(BIN)/python -m pytest --numprocesses 8 --dist worksteal

test-unit: $(VENV)/.compiled  ## Run the unit tests, which take seconds
	$(BIN)/python -m pytest tests/unit

lint: $(VENV)/.test  ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.test  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: lint test  ## Run lint and all tests, as CI does

bench: $(VENV)/.test  ## Run the benchmarks (minutes)
	$(BIN)/python benchmarks/latency.py
	$(BIN)/python benchmarks/overhead.py --table
	$(BIN)/python benchmarks/local_run.py
	$(BIN)/python benchmarks/fedtrain.py
	$(BIN)/python benchmarks/aggregation.py
	$(BIN)/python benchmarks/robustness.py --plot
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/metrics.py

fuzz: $(VENV)/.test  ## Look for inputs that break a parser (MINUTES=10)
	$(PIP) --editable '.[fuzz]'
	$(BIN)/python tests/fuzz/run.py --minutes $(or $(MINUTES),10)

pictures: $(VENV)/.demo  ## Record the pictures of the documentation again
	$(PIP) --editable '.[docs]'
	$(BIN)/python docs/pictures/run.py
	$(BIN)/python docs/pictures/page.py

compose:  ## Run the demo of compose.yaml
	docker compose up --build

clean:  ## Remove everything that the targets and runs have created
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis flavor-runs flavor-work fuzz-findings
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
