# make run    the whole pipeline on the sample documents        (ARGS="--documents DIR" for others)
# make test   every test but three (markers browser, error_rates and sweep in pyproject.toml)
# make lint   style and the dependency rule
# The first call makes .venv and installs what is needed: several minutes. Python: make run PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# Each worker loads torch: more of them than this costs memory, not time.
TEST_WORKERS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); [ $$n -gt 8 ] && echo 8 || echo $$n)
# In order of collection: the long files (integration, e2e) begin, the short ones fill what is left.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet --no-compile
# pip would compile 22,000 files on one core. Some are templates that no Python can compile.
COMPILE := $(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true

# Two calls: Prefect's and DeepSpeed's tests collected in one process end with pytest's captured stderr closed.
.PHONY: run test lint clean
.DELETE_ON_ERROR:

run: $(VENV)/.installed
	$(BIN)/lco run $(ARGS)

test: $(VENV)/.installed-test
	$(PYTEST) --ignore tests/unit/pipelines --ignore tests/e2e $(ARGS)
	$(PYTEST) tests/e2e tests/unit/pipelines $(ARGS)

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) build *.egg-info

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "$(PYTHON) is not Python 3.11, 3.12 or 3.13: install one of them, then: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml infra/constraints.txt | $(BIN)/python
	@echo "Installing into $(VENV): several minutes the first time."
	$(PIP) torch==2.13.0
	$(PIP) -c infra/constraints.txt -e .
	@$(COMPILE)
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) -c infra/constraints.txt -e '.[test]'
	@$(COMPILE)
	@touch $@
