# A fresh machine needs python3 (3.11 or newer, with venv) and make; everything else is installed into .venv.
# The stamp makes the second call instant; it is renewed when the dependencies change.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.stamp
STAMP_DEV := .venv/.stamp-dev
STAMP_BENCH := .venv/.stamp-bench
STAMP_DOCS := .venv/.stamp-docs
# What `make run` needs, and what the other targets install on top. The extra data is left out, because no test needs
# it; `.venv/bin/pip install -c constraints.txt -e ".[data]"` adds it.
EXTRAS := qiskit
DEV_EXTRAS := dev,qiskit,pennylane,tensornet,triton
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help run test lint bench bench-statevector bench-kernels bench-models bench-gpu soak backends-table docs clean

help: ## print the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-17s %s\n", $$1, $$2}' Makefile

run: $(STAMP) ## train the small hybrid model and its twin, print the table; options: make run ARGS="--seeds 5"
	$(BIN)/python -m qlm.mainjob $(ARGS)

# Two workers that each compute on one thread: more threads than cores make small tensors slower.
test: $(STAMP_DEV) ## run all tests and docstring examples; options: make test ARGS="-k scan"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile $(ARGS)

lint: $(STAMP_DEV) ## style, types and the import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

# Ratios within one process, after a check of the results; on a machine with other work they waver.
BENCHMARKS := tt_linear mps components kernel_attention time_crystal entropy ranks born_head
bench: $(STAMP_DEV) ## run all benchmarks; some of them: make bench BENCHMARKS="scan mps"
	@set -e; for name in $(BENCHMARKS); do echo "== $$name"; OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m benchmarks.$$name; done

bench-statevector: $(STAMP_BENCH) ## the simulator beside its peers, into benchmarks/results
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m benchmarks.statevector $(ARGS)
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m benchmarks.wide_states

bench-kernels: $(STAMP_BENCH) ## recurrences beside memcpy and their peers, into benchmarks/results
	@set -e; for name in scan selective_scan; do OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m benchmarks.$$name; done
	$(BIN)/python -m benchmarks.goals_plot kernels scan selective_scan

bench-models: $(STAMP_BENCH) ## recurrent models beside GPT-2 and Mamba, tasks, a stream, a conversion
	@set -e; for name in models mamba_peers tasks stream conversion; do \
	  OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m benchmarks.$$name; done
	$(BIN)/python -m benchmarks.goals_plot models models mamba_peers

bench-gpu: $(STAMP_DEV) ## the Triton kernels on a CUDA card, beside its own copy
	$(BIN)/python -W ignore -m benchmarks.gpu $(ARGS)

soak: $(STAMP_DEV) ## ten minutes of random circuits, and 200 processes killed while they carry a job
	$(BIN)/python -m benchmarks.soak
	$(BIN)/python -m benchmarks.soak_ledger

backends-table: $(STAMP_DEV) ## measure every backend against dense matrices and write README's table of them
	$(BIN)/python -m backends.conformance.table README.md

docs: $(STAMP_DOCS) ## render the tutorials, executed, and the reference into docs/_build/html
	OMP_NUM_THREADS=1 $(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

clean: ## remove the environment and everything the tools wrote (runs/ stays)
	rm -rf .venv build dist docs/_build *.egg-info .hypothesis .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch goes first and alone, so that its pinned version is chosen before anything that depends on it is resolved. The
# kernels are compiled here rather than at their first use, while the extras are on their way.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "hybridqlm needs Python 3.11 or newer, but $(PYTHON) is " + sys.version.split()[0] + ": name another with `make PYTHON=python3.11`.")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	$(BIN)/python -m backends.statevector.compile & compiling=$$!; \
	  $(BIN)/python -m pip install --quiet -c constraints.txt -e ".[$(EXTRAS)]" && wait $$compiling
	@touch $@

$(STAMP_DEV): $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[$(DEV_EXTRAS)]"
	$(BIN)/python -m backends.statevector.compile --large
	$(BIN)/python -m classical_kernels.compile
	@touch $@

$(STAMP_BENCH): $(STAMP_DEV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[bench]"
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps mambapy accelerated-scan
	@touch $@

$(STAMP_DOCS): $(STAMP_DEV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[docs]"
	@touch $@
