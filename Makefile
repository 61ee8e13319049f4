# Everything runs in .venv, which the first command makes and the later ones reuse.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint clean

help:      ## list the commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18
	@echo "  PYTHON=python3.12 make demo   chooses the interpreter that .venv is made with (3.10 or newer)"

demo: $(READY)  ## compare three guides under three objectives on the embedded digits; writes runs/demo
	$(RUN) -m experiments.compare_guides --out runs/demo --overwrite
	@echo "report: $(CURDIR)/runs/demo/report.html"

test: $(READY)  ## the tests, but for those marked slow
	$(RUN) -m pytest -q -m "not slow"

test-all: $(READY)  ## all tests
	$(RUN) -m pytest -q

lint: $(READY)  ## ruff
	$(RUN) -m ruff check .

clean:     ## remove .venv, caches and build products; data/ and runs/ stay
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "error: '$(PYTHON)' is not a Python >= 3.10; name one: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -c 'import ensurepip' 2>/dev/null && $(PYTHON) -m venv $(VENV) || \
	  { $(PYTHON) -m venv --without-pip $(VENV) && $(PYTHON) -m pip --python $(RUN) install --quiet pip; }
	$(RUN) -m pip install --quiet -c constraints.txt -e '.[test]'
	@touch $@
