# `make demo` and `make test` set up everything they need in .venv; `make help` lists the rest.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

BIN := .venv/bin
READY := .venv/.ready
KEEP ?=
ONLY ?=
PYTEST_ARGS ?=

PEERS = LONGSHORE_TEST_MLFLOW="$$(tools/peer.sh mlflow)/mlflow" \
	LONGSHORE_TEST_SELDON="$$(tools/peer.sh image-seldon sdk/images/requirements/lock-seldon.txt)" \
	LONGSHORE_TEST_MLSERVER="$$(tools/peer.sh mlserver)"
HARNESS := PYTHONPATH=tests/cluster $(BIN)/python -m harness

.PHONY: help setup demo test test-together frameworks lint docs docs-serve unit bench cluster cluster-down cluster-parts compile reference lock clean

help:  ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY)  ## Make .venv with the locked dependencies and longshore itself

$(READY): requirements/dev.txt setup.cfg pyproject.toml tools/setup.sh
	@tools/setup.sh
	@touch $@

demo: $(READY)  ## Run the main job on this machine; KEEP=1 leaves the server up
	@KEEP="$(KEEP)" tools/demo.sh

test: lint docs cluster-parts  ## Check, build the docs and run all tests
	@$(PEERS) $(BIN)/python -m pytest $(PYTEST_ARGS)
	@$(MAKE) --no-print-directory frameworks PYTEST_ARGS=

test-together: lint docs cluster-parts  ## The same with two tests at a time, in two thirds of the time
	@$(PEERS) $(BIN)/python tools/run_tests.py "$$(tools/peer.sh frameworks)/python"

frameworks: $(READY)  ## Run the tests with PyTorch, TensorFlow and TorchServe, which the first time are 7 GB to install
	@"$$(tools/peer.sh frameworks)/python" -m pytest tests/frameworks $(PYTEST_ARGS)

unit: $(READY)  ## Run the pure tests only
	@$(BIN)/python -m pytest tests/unit $(PYTEST_ARGS)

lint: $(READY)  ## Style, types and layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@tools/check_types.sh

docs: $(READY)  ## Build the documentation into site/
	@tools/layout.sh
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

docs-serve: $(READY)  ## Show the documentation on this machine
	@tools/layout.sh
	@$(BIN)/mkdocs serve --dev-addr 127.0.0.1:8000

bench: cluster-parts  ## Measure against peers; ONLY=name for one
	@ONLY="$(ONLY)" $(BIN)/python tests/benchmarks/run.py

cluster-parts: $(READY)  ## Build what the tests on Kubernetes take, once
	@$(HARNESS) parts

cluster: cluster-parts  ## Start a Kubernetes cluster on this machine; as root with a real node
	@$(HARNESS) up

cluster-down: $(READY)  ## End it
	@$(HARNESS) down

compile: $(READY)  ## Compile the pipelines into manifests/pipelines/
	@$(BIN)/python tools/generate.py pipelines

reference: $(READY)  ## Generate the component reference, and roles, runtimes and Dockerfiles in manifests/
	@$(BIN)/python tools/generate.py reference
	@$(BIN)/python tools/generate.py roles
	@$(BIN)/python tools/generate.py kserve
	@$(BIN)/python tools/generate.py images

lock: $(READY)  ## Resolve requirements/dev.txt anew
	@$(BIN)/python -m pip install --quiet uv
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--extra local --extra flask --extra django --extra xgboost --extra lightgbm --extra onnx \
		--extra kserve --extra s3 \
		--custom-compile-command "make lock" setup.cfg requirements/dev.in -o requirements/dev.txt
	@for peer in bentoml mlflow mlserver seldon; do \
		$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
			--custom-compile-command "make lock" requirements/$$peer.in -o requirements/$$peer.txt; \
	done
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--extra local --extra onnx --extra tensorflow --extra torchserve \
		--constraints requirements/dev.txt --overrides requirements/frameworks-overrides.in \
		--custom-compile-command "make lock" setup.cfg requirements/frameworks.in -o requirements/frameworks.txt
	@tools/lock_images.sh
	@for wanted in tests/cluster/images/*/requirements.in; do \
		$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
			--custom-compile-command "make lock" $$wanted -o $${wanted%.in}.txt; \
	done

clean:  ## Remove what the other commands made
	@rm -rf .venv build dist site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache *.egg-info
