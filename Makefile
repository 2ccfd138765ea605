# Every target sets itself up into .venv from the locks; nothing else is needed but python3.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What runs, and what tests need besides.
READY := $(VENV)/.ready
READY_DEV := $(VENV)/.ready-dev
SETUP := pyproject.toml infra/setup.sh infra/setup.lock

# Whole files to processes, as many and in the order that tests/support/parallel.py says.
PARALLEL := -n auto --dist loadfile --no-loadscope-reorder

.PHONY: demo test lint bench lock clean setup

demo: $(READY)
	@$(BIN)/marketflow demo

test: $(READY_DEV)
	@$(BIN)/python -m pytest $(PARALLEL) $(PYTEST_ARGS)

lint: $(READY_DEV)
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

bench: $(READY)
	@$(BIN)/marketflow bench

setup: $(READY_DEV)

$(READY): requirements.lock $(SETUP)
	@PYTHON="$(PYTHON)" sh infra/setup.sh "$(VENV)" requirements.lock
	@touch $(READY)

$(READY_DEV): requirements.lock requirements-dev.lock $(SETUP)
	@PYTHON="$(PYTHON)" sh infra/setup.sh "$(VENV)" requirements.lock requirements-dev.lock
	@touch $(READY) $(READY_DEV)

# New versions: uv is only needed here, by whoever changes dependencies (setup installs it).
UV := $(BIN)/uv pip compile --python-version 3.11 --generate-hashes --no-emit-index-url \
    --no-header --no-annotate
lock:
	$(UV) pyproject.toml -o requirements.lock
	$(UV) --group dev -c requirements.lock -o requirements-dev.lock
	$(UV) --group setup -c requirements.lock -o infra/setup.lock

clean:
	rm -rf $(VENV) .cache
