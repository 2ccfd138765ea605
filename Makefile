# Every target sets itself up into .venv from requirements.lock; nothing else is needed but python3.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint bench lock clean setup

demo: $(READY)
	@$(BIN)/marketflow demo

test: $(READY)
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(READY)
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

bench: $(READY)
	@$(BIN)/marketflow bench

setup: $(READY)

$(READY): requirements.lock pyproject.toml infra/setup.sh
	@PYTHON="$(PYTHON)" sh infra/setup.sh "$(VENV)"
	@touch $(READY)

# New versions: uv is only needed here, by whoever changes dependencies.
lock:
	uv pip compile --python-version 3.11 --extra dev --generate-hashes --no-emit-index-url \
	    --no-header --no-annotate pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) .cache
