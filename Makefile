# make demo: set up, then the main job on the embedded models.  make check: lint, types and the quick
# tests, in about a minute.  make test: every check.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo figures docs lint check test audit clean

demo: $(VENV)/.ready
	$(BIN)/xhat demo --out runs/demo

# every figure from its data, in under a minute, without a model
figures: $(VENV)/.ready
	$(BIN)/xhat figures --out runs/figures

# the site in site/, which opens from files, with the notebooks run; its Python is run by the tests
RENDERED := $(patsubst notebooks/%,build/notebooks/%,$(wildcard notebooks/*.ipynb))
docs: $(VENV)/.ready-docs $(RENDERED)
	$(BIN)/mkdocs build --strict --quiet

build/notebooks/%.ipynb: notebooks/%.ipynb | $(VENV)/.ready-docs
	mkdir -p $(@D) build/run/$* && cp $< build/run/$*/
	$(BIN)/jupyter nbconvert --execute --to notebook --inplace --log-level WARN build/run/$*/$(<F)
	mv build/run/$*/$(<F) $@

lint: $(VENV)/.ready-dev
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --no-cache --check .
	$(BIN)/mypy

check: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not slow' -n auto --maxprocesses 4 --dist worksteal

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal
	$(BIN)/python -m pytest --doctest-modules src/xhat
	PYTHON=$(BIN)/python sh tests/wheel.sh

$(VENV)/.ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) -e .
	touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	$(PIP) -e '.[dev]'
	touch $@

$(VENV)/.ready-docs: $(VENV)/.ready
	$(PIP) -e '.[docs]'
	touch $@

# known vulnerabilities of the pinned versions, where a registry answers
audit: $(VENV)/.ready-dev
	PYTHON=$(BIN)/python sh tests/audit.sh constraints.txt

clean:
	rm -rf site build $(VENV) dist runs src/*.egg-info
