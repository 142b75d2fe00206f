# Every path is relative and every expansion is quoted: the clone may lie under a path with spaces. For the same
# reason tools are called as modules; the scripts of an environment name its absolute path.

PYTHON ?= python3
# cpu, cuda or base (no TorchRec: macOS, Windows). The choice is remembered in .venv.
LOCK ?= $(or $(shell cat .venv/lock 2>/dev/null),$(if $(filter Linux,$(shell uname -s)),cpu,base))
# More options for pytest, as in: make test ARGS="-k metrics"
ARGS ?=

RUN := .venv/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check -qq install --no-deps
PYTEST := OMP_NUM_THREADS=1 $(RUN) -m pytest
# Each worker begins with one half of the tests in their order, so that what a file's tests share is made once; the
# one that ends first takes of the other's.
TWO := -n 2 --dist worksteal
STAMP := .venv/stamp-$(LOCK)

.PHONY: help env demo bench profile test test-slow test-all test-gpu chaos check check-lint check-format \
	check-types check-imports check-examples hooks clean

help:
	@echo "make demo       simulate a click log, train HyFormer on it, evaluate, report (4 minutes)"
	@echo "make bench      speed, memory and what each optimisation contributes (6 minutes)"
	@echo "make profile    where a training step goes: phases, blocks, operators (half a minute)"
	@echo "make test       the tests"
	@echo "make test-slow  the tests of more than 5 seconds each"
	@echo "make test-all   both, in one session"
	@echo "make test-gpu   the tests that need an NVIDIA GPU"
	@echo "make chaos      kills, full disks, dead servers, damaged files: a line per row of docs/faults.md (5 minutes)"
	@echo "make check      lint, format, types, import contracts, documentation examples"
	@echo "make hooks      let git run these checks before a commit and a push"
	@echo "make env        only make the environment, in .venv (the others do it when needed)"
	@echo "make clean      remove the environment and the caches; data/ and runs/ stay"
	@echo "Options: LOCK=cpu|cuda|base  PYTHON=python3.12  ARGS='-k metrics'"

demo: $(STAMP)
	@$(RUN) -m pipelines.cli demo

bench: $(STAMP)
	@$(RUN) -m pipelines.cli bench $(ARGS)

profile: $(STAMP)
	@$(RUN) -m pipelines.cli bench profile --out runs/profile $(ARGS)

test: $(STAMP)
	@$(PYTEST) $(TWO) $(ARGS)

test-slow: $(STAMP)
	@$(PYTEST) $(TWO) -m "slow and not gpu" $(ARGS) || [ $$? -eq 5 ] # 5: there are none

test-all: $(STAMP)
	@$(PYTEST) $(TWO) -m "not gpu" $(ARGS)

test-gpu: $(STAMP)
	@$(PYTEST) -m gpu $(ARGS)

# Kills and flips are drawn from CHAOS_SEED, 0 unless set.
chaos: $(STAMP)
	@$(PYTEST) $(TWO) -q -p tests.faults -m "fault and not gpu" $(ARGS)

# The one list of checks: `make check` runs them in turn, `make -j2 check` two at a time, and .pre-commit-config.yaml
# calls each by its name.
check: check-lint check-format check-types check-imports check-examples

check-lint: $(STAMP)
	@echo "check: lint" && $(RUN) -m ruff check --quiet .

check-format: $(STAMP)
	@echo "check: format" && $(RUN) -m ruff format --check --quiet .

check-types: $(STAMP)
	@echo "check: types" && $(RUN) -m mypy

check-imports: $(STAMP)
	@echo "check: imports" && $(RUN) -c 'from importlinter.cli import lint_imports_command as run; run()' --no-logo

check-examples: $(STAMP)
	@echo "check: examples" && $(PYTEST) -q --doctest-modules --ignore-glob='kernels/*/triton.py' \
		ctr features kernels pipelines

# Before each commit what takes seconds, before each push the rest. `git commit --no-verify` goes past them.
hooks: $(STAMP)
	@$(RUN) -m pre_commit install

env: $(STAMP)
	@echo "env: .venv holds requirements/$(LOCK).txt"

$(STAMP): requirements/base.txt requirements/$(LOCK).txt requirements/torchrec.txt requirements/torch-cuda.txt \
		requirements/transformers.txt requirements/lake.txt requirements/remote.txt requirements/dev.txt \
		pyproject.toml
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "env: needs Python 3.11 or newer, got '$(PYTHON)' ($$("$(PYTHON)" --version 2>&1));" \
			"name another: make PYTHON=python3.12" >&2; exit 1; }
	@$(RUN) -m pip --version >/dev/null 2>&1 || { echo "env: making .venv"; "$(PYTHON)" -m venv --clear .venv; }
	@rm -f .venv/stamp-*
	@echo "env: installing requirements/$(LOCK).txt and the test tools (some minutes)"
	@$(PIP) -r requirements/$(LOCK).txt -r requirements/transformers.txt -r requirements/lake.txt \
		-r requirements/remote.txt -r requirements/dev.txt
	@$(RUN) -c 'import torch' 2>/dev/null || { \
		echo "env: pip's index served the CUDA build of torch; adding its libraries (2.5 GB)"; \
		$(PIP) -r requirements/torch-cuda.txt; }
	@echo "env: installing the ctr command"
	@$(PIP) --no-build-isolation --editable .
	@$(RUN) -c 'from ctr.runs.versions import check_versions; check_versions()'
	@echo "$(LOCK)" > .venv/lock && touch "$@"

clean:
	@rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info
	@find ctr features kernels pipelines tests -name __pycache__ -type d -prune -exec rm -rf {} +
