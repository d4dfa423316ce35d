# Three commands, each from a fresh clone: make digits, make test, make lab.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt

.PHONY: help digits test test-classroom lab clean
help:
	@echo "make digits  train a DiT on handwritten digits and draw new ones (runs/digits/)"
	@echo "make lab     open the lessons in JupyterLab"
	@echo "make test    check everything: lint, sync, lessons, tests, wheel"
	@echo "make test-classroom   whole classes graded by nbgrader"

# torch first and by its exact version: nothing after it may pull in another build.
.venv/ready: settings.ini setup.py pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) torch
	$(PIP) -e '.[dev]'
	$(PIP) --no-deps torch-fidelity  # its torchvision would want another torch; the tests do without
	touch $@

digits: .venv/ready
	$(BIN)/dit-nb digits $(ARGS)

lab: .venv/ready
	$(BIN)/jupyter lab $(ARGS) nbs/1_tokens/00_tour.ipynb

# One thread for each worker: two that share two cores wait for each other.
test: export OMP_NUM_THREADS = 1
test: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tools/check_sync.py
	$(BIN)/nbdev_test --n_workers 2 --do_print
	$(BIN)/nbdev_test --path index.ipynb --n_workers 1
	rm -rf build dist
	$(BIN)/python -m build --wheel --no-isolation . > /dev/null
	$(BIN)/python -m pytest -q -n 2 --dist loadgroup --ignore tests/test_classroom.py tests

# Whole classes through the real nbgrader: minutes.
test-classroom: export OMP_NUM_THREADS = 1
test-classroom: .venv/ready
	$(BIN)/python -m pytest -q -n 2 --dist loadgroup tests/test_classroom.py

clean:
	rm -rf .venv build dist *.egg-info
