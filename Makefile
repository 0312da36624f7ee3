# make run    the whole pipeline on the sample documents        (ARGS="--documents DIR" for others)
# make test   every test but three (markers browser, error_rates and sweep in pyproject.toml)
# make lint   style and the dependency rule
# make lock   new requirements.txt from pyproject.toml           (ARGS=--upgrade for newer versions)
# The first call makes .venv and installs what is needed: a minute or two. Python: make run PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# Each worker loads torch: more of them than this costs memory, not time.
TEST_WORKERS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); [ $$n -gt 8 ] && echo 8 || echo $$n)
# In order of collection: the long files (integration, e2e) begin, the short ones fill what is left.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet --no-compile
UV := $(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps
# One lock for Python 3.11 to 3.13. torch is not in it: its builds (CPU, CUDA) share a version, not a hash.
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-emit-package torch --custom-compile-command 'make lock'

# Python compiles what it imports at its first use, a quarter of 23,000 files, and must be free to keep it.
unexport PYTHONDONTWRITEBYTECODE

# Two calls: Prefect's and DeepSpeed's tests collected in one process end with pytest's captured stderr closed.
.PHONY: run test lint lock clean
.DELETE_ON_ERROR:

run: $(VENV)/.installed
	$(BIN)/lco run $(ARGS)

test: $(VENV)/.installed
	$(PYTEST) --ignore tests/unit/pipelines --ignore tests/e2e $(ARGS)
	$(PYTEST) tests/e2e tests/unit/pipelines $(ARGS)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/lint-imports

lock: | $(BIN)/uv
	$(LOCK) pyproject.toml --extra bench --extra build-samples --extra test -o requirements.txt $(ARGS)
	$(LOCK) pyproject.toml --extra mteb --constraints requirements.txt --excludes requirements.txt -o requirements-mteb.txt $(ARGS)

clean:
	rm -rf $(VENV) build *.egg-info

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "$(PYTHON) is not Python 3.11, 3.12 or 3.13: install one of them, then: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# pip brings uv by the lock's hash; uv brings the rest, and checks what builds a package (DeepSpeed has no wheel) too.
# Then torch finds what it needs: pip adds only the libraries that a CUDA build names. Ours is built by the setuptools
# of the lock.
$(BIN)/uv: | $(BIN)/python
	sed -n '/^uv==/,/[^\\]$$/p' requirements.txt >$(VENV)/uv.txt
	$(PIP) --no-deps --require-hashes -r $(VENV)/uv.txt

$(VENV)/.installed: pyproject.toml requirements.txt | $(BIN)/uv
	@echo "Installing into $(VENV): a minute or two the first time."
	$(UV) --require-hashes --require-build-hashes --build-constraints requirements.txt -r requirements.txt
	$(PIP) torch==2.13.0
	$(UV) --no-build-isolation -e .
	@touch $@
