# One obvious entry for each chore; each makes what it needs. The environment is remade when pyproject.toml or
# constraints.txt change.

PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.stamp

.PHONY: compare test check format bench docs clean help

help:
	@echo "make compare   three reference deployments on this machine, under 10 minutes"
	@echo "make test      every test"
	@echo "make check     ruff and mypy --strict"
	@echo "make format    ruff format"
	@echo "make bench     benchmarks of pdbench itself"
	@echo "make docs      the documentation, into site/"
	@echo "make clean     remove what these made (results stay)"

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $(STAMP)

compare: $(STAMP)
	$(BIN)/pdbench compare --workload chat --pairs 6 --num-requests 40

test: $(STAMP)
	$(BIN)/python -m pytest

check: $(STAMP)
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check
	$(BIN)/python -m mypy

format: $(STAMP)
	$(BIN)/python -m ruff format
	$(BIN)/python -m ruff check --fix

bench: $(STAMP)
	$(BIN)/python -m benchmarks.engine
	$(BIN)/python -m benchmarks.client

docs: $(STAMP)
	$(BIN)/python -m mkdocs build --strict

clean:
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
