# From a fresh clone: make digits, make check, make test, make lab.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help digits emoji lab check test test-hard test-classroom test-oldest test-newest lint sync site slides hooks clean
help:
	@echo "make digits   train a DiT on handwritten digits and sample new ones (runs/digits/)"
	@echo "make emoji    train a DiT on smileys in color, ten minutes (runs/emoji/)"
	@echo "make lab      open the lessons in JupyterLab"
	@echo "make check    before each commit: lint, types, layers, generated files, core tests (under 3 minutes)"
	@echo "make test     all but whole classes: check, all lessons, all tests, wheel and sdist"
	@echo "make test-hard   kills, full disks, damaged files, random calls: an hour, not part of CI; writes tests/hard/RESULTS.md"
	@echo "make test-classroom   whole classes graded by nbgrader (part of CI)"
	@echo "make test-oldest, make test-newest   lessons and guides on the oldest and newest versions that settings.ini allows"
	@echo "make sync     write what is generated: modules from lessons, README.md, assignments"
	@echo "make site     build the website into _site/html (minutes)"
	@echo "make slides   slides of lessons, in slides/ (LESSONS=nbs/1_tokens/03_patchify.ipynb for one)"
	@echo "make hooks    set up git for notebooks: nbdev's merge driver and clean-up"

# torch first and by its exact version: nothing after it may pull in another build.
.venv/ready: settings.ini setup.py pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) torch
	$(PIP) -e '.[dev]'
	$(PIP) --no-deps torch-fidelity  # its torchvision would want another torch; the tests do without
	touch $@

digits: .venv/ready
	dit-nb digits $(ARGS)

emoji: .venv/ready
	dit-nb emoji $(ARGS)

lab: .venv/ready
	jupyter lab $(ARGS) nbs/1_tokens/00_tour.ipynb

lint: .venv/ready
	ruff check .
	ruff format --check .
	python tools/check_words.py
	lint-imports --no-logo
	basedpyright
	python tools/check_sync.py

# One thread for each worker: two that share two cores wait for each other.
check: export OMP_NUM_THREADS = 1
check: lint
	python -m pytest -q -n 2 -m "not slow" tests/core

test: export OMP_NUM_THREADS = 1
test: lint
	nbdev_test --n_workers 2 --do_print
	nbdev_test --path index.ipynb --n_workers 1
	python -m pytest -q -n 2 --dist loadgroup --ignore tests/teach/classroom --ignore tests/hard tests

# Runs that are killed, full disks, damaged files, random calls. ARGS="-k kills" runs a part.
test-hard: export OMP_NUM_THREADS = 1
test-hard: .venv/ready
	python -m pytest -q -m hard tests/hard $(ARGS)

# Whole classes through the real nbgrader: minutes.
test-classroom: export OMP_NUM_THREADS = 1
test-classroom: .venv/ready
	python -m pytest -q -n 2 --dist loadgroup tests/teach/classroom

# The course on other versions of what it stands on, in an environment of its own. The map and the study of designs
# say themselves that they need more. TORCH=torch==2.13.0 takes that torch instead of the oldest one.
test-oldest: VERSIONS = $(PYTHON) tools/oldest.py $(TORCH)
test-newest: VERSIONS = echo $(TORCH)
test-oldest test-newest: export OMP_NUM_THREADS = 1
test-oldest test-newest:
	$(PYTHON) -m venv --clear .venv-$@
	$(VERSIONS) > .venv-$@/constraints.txt
	.venv-$@/bin/python -m pip install -q -c .venv-$@/constraints.txt torch
	.venv-$@/bin/python -m pip install -q -c .venv-$@/constraints.txt -e '.[lab]' 'nbdev<3' 'fastcore<2' 'execnb<0.2' 'ghapi<2'
	PATH="$(CURDIR)/.venv-$@/bin:$$PATH" nbdev_test --n_workers 2 --do_print --skip_file_re '^([_.]|the_map|study_designs)'

sync: .venv/ready
	python tools/check_sync.py --write

site: .venv/ready
	python site/build.py $(ARGS)

LESSONS ?= $(wildcard nbs/[1-5]_*/*.ipynb)
slides: .venv/ready
	python tools/slides.py $(LESSONS)

hooks: .venv/ready
	nbdev_install_hooks

clean:
	rm -rf .venv .venv-* build dist *.egg-info
