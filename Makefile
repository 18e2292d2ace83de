# Everything here sets itself up: the first call makes .venv and installs requirements.txt into it.
#
#   TORCH=cpu    install torch's CPU build (Linux without CUDA: saves some gigabytes), e.g. `make test TORCH=cpu`;
#                said once, it holds until another value or `make clean`
#   PYTHON=...   the Python 3.11, 3.12 or 3.13 to make .venv from, if the one found first is not the one you want;
#                after `make clean`, if there is a .venv already

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help book page pdf links test notebooks mutants bench peers coursework repository has-what has-url clean

BIN := .venv/bin
BOOK := _build/html/index.html
# The name of the file that says .venv is ready also says which torch is in it.
ifndef TORCH
TORCH := $(or $(patsubst .venv/.ready-%,%,$(wildcard .venv/.ready-*)),default)
endif
READY := .venv/.ready-$(TORCH)
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu

FITS := import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	if $$python -c '$(FITS)' >/dev/null 2>&1; then echo $$python; break; fi; done)

# Numbers must not depend on how many cores there are.
export OMP_NUM_THREADS := 1
export MKL_NUM_THREADS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# The test that installs the wheel into an environment of its own needs to know.
export TORCH TORCH_CPU_INDEX

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile
	@echo "  Variables: TORCH=cpu (torch without CUDA on Linux), PYTHON=... (3.11, 3.12 or 3.13)."

$(READY): requirements.txt
	@if ! "$(PYTHON)" -c '$(FITS)' 2>/dev/null; then \
		echo "This project needs Python 3.11, 3.12 or 3.13 with its venv module, and found none:" \
		     "install one (on Debian: python3 and python3-venv) or name it with PYTHON=..." >&2; exit 1; fi
	@echo "Setting up .venv with $$($(PYTHON) --version) (once; a minute or more)"
	@$(PYTHON) -m venv --clear .venv
	@if [ "$(TORCH)" = cpu ]; then \
		$(BIN)/pip install --quiet --index-url $(TORCH_CPU_INDEX) "$$(grep '^torch==' requirements.txt)"; fi
	@$(BIN)/pip install --quiet -r requirements.txt
	@$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

book: $(READY)  ## build the HTML and print the file to open
	@$(BIN)/jupyter-book build --quiet -W -n --keep-going .
	@echo "Open $(CURDIR)/$(BOOK)"

page: $(READY)  ## build one page alone, in seconds: make page PAGE=03
	@$(BIN)/python tools/build_page.py "$(PAGE)"

pdf: book  ## print the whole book as one PDF, beside the HTML (minutes; needs a Chromium)
	@$(BIN)/python tools/build_pdf.py
	@$(MAKE) --no-print-directory book

links: $(READY)  ## try every link to another site (needs a network)
	@$(BIN)/jupyter-book build --quiet --builder linkcheck .

test: $(READY)  ## check everything: style, types, library, notebooks, book
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=15

notebooks: $(READY)  ## run all notebooks again and store their outputs
	@$(BIN)/python tools/execute_notebooks.py

mutants: $(READY)  ## plant mistakes in what changed and see that they are noticed
	@$(BIN)/python tools/mutants.py

bench: $(READY)  ## time other libraries and ours in one run, and write the page of the book
	@$(BIN)/python -m benchmarks --write

peers: $(READY)  ## install the libraries that ours is compared with
	@$(BIN)/python -m benchmarks.environment

coursework: has-what $(READY)  ## make an assignment: make coursework WHAT=derive (or a chapter's number)
	@$(BIN)/python -m coursework make $(WHAT)

repository: has-url $(READY)  ## set the repository's address: make repository URL=https://github.com/OWNER/NAME
	@$(BIN)/python tools/repository.py "$(URL)"

has-what:
	@test -n "$(WHAT)" || { echo "Say which: make coursework WHAT=derive (or sampler, train, a chapter's number)" >&2; exit 2; }

has-url:
	@test -n "$(URL)" || { echo "Say which: make repository URL=https://github.com/OWNER/NAME" >&2; exit 2; }

clean:  ## remove what was built, .venv and .venv-peers
	@rm -rf _build build .venv .venv-peers *.egg-info .pytest_cache .mypy_cache .ruff_cache
