# One command each; every one of them sets up what it needs, and does so once.
#   make demo    an image moves as a sentence asks: demo/index.html
#   make test    every chapter, and that the library is what the chapters say
#   make lab     open the book in JupyterLab
#   make docs    the book as web pages: _docs/index.html
#   make clean   remove what these made, the environment included
# and for those who change a chapter:
#   make export  write lamd_nb/ and README.md anew from nbs/
#   make run NB=nbs/2_autoencoder/04_fusion.ipynb    run a chapter and store what it shows

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
BIN    := $(VENV)/bin
FACTS  := settings.ini setup.py constraints.txt
export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test lab docs export run clean
help:
	@sed -n 's/^#   //p' Makefile

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "Python 3.10 or later is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/use.stamp: $(FACTS) | $(BIN)/python
	@echo "Installing into $(VENV), once; PyTorch takes most of the time."
	$(BIN)/python -m pip install -qq -c constraints.txt -e .
	@touch $@

$(VENV)/dev.stamp: $(FACTS) | $(BIN)/python
	@echo "Installing into $(VENV), once; PyTorch takes most of the time."
	$(BIN)/python -m pip install -qq -c constraints.txt -e ".[dev]"
	@touch $@ $(VENV)/use.stamp

demo: $(VENV)/use.stamp
	OMP_NUM_THREADS=$$(nproc 2>/dev/null || echo 2) $(BIN)/lamd_demo --out demo

test: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -n 2 --dist worksteal -W ignore::DeprecationWarning --durations=6 tests

lab: $(VENV)/dev.stamp
	env -u OMP_NUM_THREADS $(BIN)/jupyter lab --notebook-dir=nbs

docs: $(VENV)/dev.stamp
	$(BIN)/python nbs/_tools/site.py --out _docs

export: $(VENV)/dev.stamp
	env -u IN_TEST $(BIN)/nbdev_export
	$(BIN)/python nbs/_tools/readme.py

run: $(VENV)/dev.stamp
	$(BIN)/python nbs/_tools/run.py $(NB)

clean:
	rm -rf $(VENV) demo _docs _proc build dist *.egg-info .pytest_cache .ruff_cache
