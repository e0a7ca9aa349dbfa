# One obvious entry for each chore; each makes what it needs. The environment is remade when pyproject.toml or
# constraints.txt change.

PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.stamp

.PHONY: install compare test check format bench bench-peers soak docs clean help

help:
	@echo "make install   the virtual environment, .venv"
	@echo "make compare   three reference deployments on this machine, under 10 minutes"
	@echo "make test      every test"
	@echo "make check     ruff and mypy --strict"
	@echo "make format    ruff format"
	@echo "make bench     is the client right? accuracy, capacity, arrivals; about 10 minutes"
	@echo "make bench-peers  the same work by pdbench, GuideLLM, AIPerf and plain aiohttp; about 15 minutes"
	@echo "make soak      overload and distribution, ten tries each; about 10 minutes"
	@echo "make docs      the documentation, into site/"
	@echo "make clean     remove what these made (results stay)"

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $(STAMP)

install: $(STAMP)

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

# A missed target ends a benchmark with 1; the others still run.
bench: $(STAMP)
	mkdir -p results
	-$(BIN)/python -m benchmarks.accuracy --json results/bench-accuracy.json
	-$(BIN)/python -m benchmarks.capacity --json results/bench-capacity.json
	-$(BIN)/python -m benchmarks.arrivals --json results/bench-arrivals.json
	-$(BIN)/python -m benchmarks.report
	$(BIN)/python -m benchmarks.engine

bench-peers: $(STAMP)
	mkdir -p results
	$(BIN)/python -m benchmarks.peers --json results/bench-peers.json

soak: $(STAMP)
	mkdir -p results
	-$(BIN)/python -m benchmarks.overload --json results/bench-overload.json
	-$(BIN)/python -m benchmarks.workers --json results/bench-workers.json

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

clean:
	rm -rf benchmarks/.build benchmarks/.peers $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
