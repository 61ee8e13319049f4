# Everything runs in .venv, which the first command makes and the later ones reuse.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.installed
PYTEST := -m pytest -q -n auto --maxprocesses 8 --dist worksteal

# `make lowest TORCH=2.13.0 TESTS=tests/experiments` takes another torch, or runs a part of the tests.
LOWEST := .venv-lowest
TORCH ?= $(shell sed -n 's/.*"torch>=\(.*\)".*/\1/p' pyproject.toml)
TESTS ?= tests

.DEFAULT_GOAL := help
.PHONY: help demo docs test test-all lowest lint clean release

help:      ## list the commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18
	@echo "  PYTHON=python3.12 make demo   chooses the interpreter that .venv is made with (3.10 or newer)"

demo: $(READY)  ## compare three guides under three objectives on the embedded digits; writes runs/demo
	$(RUN) -m dlvm.experiments.compare_guides --out runs/demo --overwrite
	@echo "report: $(CURDIR)/runs/demo/report.html"

docs: $(VENV)/.docs  ## the documentation site, with no warning, into build/site; open build/site/index.html
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --quiet --strict
	@echo "site: $(CURDIR)/build/site/index.html; with search: $(RUN) -m http.server -d build/site"

test: $(READY)  ## the tests, but for those marked slow
	$(RUN) $(PYTEST) -m "not slow"

test-all: $(READY)  ## all tests
	$(RUN) $(PYTEST)

lowest: $(LOWEST)/.torch-$(TORCH)  ## the tests with the lowest versions that are supported, in .venv-lowest
	$(LOWEST)/bin/python $(PYTEST) -m "not slow" $(TESTS)

lint: $(READY)  ## ruff, then mypy
	$(RUN) -m ruff check .
	@mkdir -p $(VENV)/source && ln -sfn ../.. $(VENV)/source/dlvm  # mypy reads no import hooks, by which this folder is dlvm
	$(RUN) -m mypy

release: $(READY)  ## wheel and sdist in dist/, checked, and README's code run from the wheel in a clean environment; publishes nothing
	@git diff --quiet HEAD -- || { echo "error: a release is made of what is committed; commit or stash first" >&2; exit 1; }
	$(RUN) -m pip install --quiet -c constraints.txt -e '.[release]'
	rm -rf dist build/lib build/release
	$(RUN) -m build --no-isolation --outdir dist .
	$(RUN) -m twine check --strict dist/*
	$(call environment,build/release)
	build/release/bin/python -m pip install --quiet -c constraints.txt dist/*.whl
	cd build/release && bin/python -c "$$EXAMPLE" ../../README.md && bin/dlvm --help > /dev/null
	@echo "version $$(build/release/bin/python -c 'from importlib.metadata import version; print(version("pyro-dlvm"))'):"; ls dist

define EXAMPLE
import pathlib, re, sys
exec(re.search(r"\x60{3}python\n(.*?)\x60{3}", pathlib.Path(sys.argv[1]).read_text("utf-8"), re.DOTALL)[1])
endef
export EXAMPLE

clean:     ## remove both .venv, caches and build products; data/ and runs/ stay
	rm -rf $(VENV) $(LOWEST) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

define environment
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "error: '$(PYTHON)' is not a Python >= 3.10; name one: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -c 'import ensurepip' 2>/dev/null && $(PYTHON) -m venv $(1) || \
	  { $(PYTHON) -m venv --without-pip $(1) && $(PYTHON) -m pip --python $(1)/bin/python install --quiet pip; }
endef

$(READY): pyproject.toml constraints.txt
	$(call environment,$(VENV))
	$(RUN) -m pip install --quiet -c constraints.txt -e '.[test]'
	@touch $@

$(VENV)/.docs: $(READY)
	$(RUN) -m pip install --quiet -c constraints.txt -e '.[docs]'
	@touch $@

$(LOWEST)/.torch-$(TORCH): pyproject.toml constraints-lowest.txt
	$(call environment,$(LOWEST))
	$(LOWEST)/bin/python -m pip install --quiet -c constraints-lowest.txt torch==$(TORCH) -e '.[test]'
	@rm -f $(LOWEST)/.torch-* && touch $@
