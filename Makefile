# On a machine with nothing but Python >= 3.11 and make:
#
#   make book     the book, executed, as pages in _build/html
#   make test     ruff, the tests, the notebooks
#
# Each makes a virtual environment in .venv first and installs requirements.txt in it. `make test VENV=/some/venv`
# uses an environment that exists, and installs nothing. `make PYTHON=python3.13 test` names the Python of .venv.

PYTHON ?= python3
JOBS ?= 2
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help book test lint zip evidence clean

ifdef VENV
READY :=
else
VENV := .venv
READY := .venv/.ready
endif

# Absolute, because some recipes and the kernels of the notebooks work in other folders.
BIN := $(abspath $(VENV))/bin
# Found without being installed when VENV names somebody else's environment; beats another copy in it.
export PYTHONPATH := $(CURDIR)
# PyTorch on two threads of a busy two-core machine can be a hundred times slower than on one.
export OMP_NUM_THREADS := 1
# Debugger warnings of the kernels would be printed in every notebook.
export PYDEVD_DISABLE_FILE_VALIDATION := 1
NOTEBOOKS := $(wildcard book/*.ipynb)
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

help:  ## what can be made
	@awk -F ':.*  ## ' '/^[a-z]+:.*  ## / {printf "  make %-8s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

book: $(READY)  ## the book: _build/html/index.html; any warning or failing cell fails it
	rm -rf _build/html _build/.doctrees _build/jupyter_execute
	"$(BIN)/python" tools/book_cache.py _build/.jupyter_cache
	"$(BIN)/jupyter-book" build . -W -n --keep-going
	@echo "Read it: $(CURDIR)/_build/html/index.html"

test: $(READY)  ## ruff, all tests (with the examples in the docstrings), all notebooks
	"$(BIN)/ruff" check .
	"$(BIN)/python" -m pytest -q -n $(JOBS) --dist loadscope --nbval-lax --nbval-cell-timeout=300 \
	    tests dsn_lite $(if $(NOTEBOOKS),book)

lint: $(READY)  ## ruff, spelling, types, and whether the notebooks are stripped of outputs
	"$(BIN)/ruff" check .
	"$(BIN)/codespell"
	"$(BIN)/mypy"
	$(if $(NOTEBOOKS),"$(BIN)/nbstripout" --keep-id --verify $(NOTEBOOKS))

zip: book  ## to take along: the pages, readable offline, and the notebooks, in _build/dsn-lite-*-VERSION.zip
	rm -f _build/dsn-lite-*.zip
	"$(BIN)/python" tools/zip_book.py _build/html "_build/dsn-lite-book-$(VERSION).zip"
	"$(BIN)/python" tools/zip_book.py book "_build/dsn-lite-notebooks-$(VERSION).zip"

evidence: $(READY)  ## results/ of the shipped weights, what is missing or older: make evidence PAIRS=... STREAMS=... MANIFEST=...
	"$(BIN)/python" tools/evidence.py "$(PAIRS)" "$(STREAMS)" "$(MANIFEST)"

clean:  ## remove what was built; .venv and runs stay
	rm -rf _build build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find dsn_lite tests tools book -name __pycache__ -type d -prune -exec rm -rf {} +

# pesq comes as source only. Where it cannot be built, all but the PESQ score works, and `dsn-lite evaluate` says so.
.venv/.ready: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "make: Python 3.11 or newer is needed, this is $$($(PYTHON) -V 2>&1); name one: make PYTHON=python3.12"; exit 1; }
	test -x .venv/bin/pip || $(PYTHON) -m venv --clear .venv
	grep -v '^pesq==' requirements.txt > .venv/requirements.txt
	"$(BIN)/python" -m pip install --disable-pip-version-check -r .venv/requirements.txt
	"$(BIN)/python" -m pip install --disable-pip-version-check "$$(grep '^pesq==' requirements.txt)" \
	    || echo "make: pesq was not built; for PESQ scores install a C compiler, then: rm .venv/.ready && make test"
	"$(BIN)/python" -m pip install --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@
