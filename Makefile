# Needs Python ≥ 3.11, git and make; everything else is installed below .venv and $(CACHE).
PYTHON ?= python3
CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/trainyard
UV_VERSION := $(shell sed -n 's/^uv==\([0-9.]*\).*/\1/p' requirements.lock)
UV_HOME := $(CACHE)/uv-$(UV_VERSION)
UV := $(UV_HOME)/bin/uv
BIN := .venv/bin
STAMP := .venv/.installed
COMPILE := $(UV) pip compile --quiet --universal --generate-hashes --python-version 3.11 --all-extras \
	--group bench --group dev --group demo --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" pyproject.toml
export DS_BUILD_OPS := 0

.DEFAULT_GOAL := help
.PHONY: help env demo test test-slow lint format bench bench-cluster generate lock clean cluster cluster-env cluster-down image

help: ## This list.
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

env: $(STAMP) ## Make .venv from requirements.lock.

$(UV):
	@echo "env: fetching uv $(UV_VERSION)"
	@rm -rf $(UV_HOME) && $(PYTHON) -m venv $(UV_HOME) && $(UV_HOME)/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(STAMP): requirements.lock pyproject.toml | $(UV)
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11, 3.12 or 3.13 is needed; set PYTHON=…" if not (3, 11) <= sys.version_info[:2] <= (3, 13) else 0)'
	@echo "env: installing the packages of requirements.lock into .venv (6 GB; a minute or two)"
	@test -x $(BIN)/python || $(UV) venv --quiet --python $(PYTHON) .venv
	@VIRTUAL_ENV=.venv $(UV) pip install --quiet --exact --require-hashes --no-build-isolation-package deepspeed -r requirements.lock
	@VIRTUAL_ENV=.venv $(UV) pip install --quiet --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m compileall -q -j 0 .venv/lib > /dev/null || true # start-up would pay for it at every run
	@touch $@

data/bbc.jsonl data/bbc-tokens.jsonl: jobs/recipes/data.py | $(STAMP)
	@$(BIN)/python jobs/recipes/data.py data

demo: env data/bbc.jsonl ## Train MiniLM on BBC News with two workers, and use the model.
	@$(BIN)/trainyard run jobs/recipes/bbc-minilm.yaml
	@$(BIN)/trainyard predict runs/bbc-minilm/final "The striker scored twice as United won the cup final"

test: lint ## Check the code and run the tests.
	@$(BIN)/python -m pytest

test-slow: env ## Run the tests that `make test` leaves out.
	@$(BIN)/python -m pytest -m slow

lint: env ## Style, types, architecture, and that generated files are current.
	@$(BIN)/ruff format --check --quiet . || { echo "fix: make format"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --cache-dir .cache/import-linter > .cache-lint.log 2>&1 || { cat .cache-lint.log; exit 1; }; rm -f .cache-lint.log
	@$(BIN)/python -m docs.generate --check
	@cp requirements.lock $(CACHE)/requirements.check && $(COMPILE) -o $(CACHE)/requirements.check && \
		diff -q requirements.lock $(CACHE)/requirements.check > /dev/null || { echo "requirements.lock is stale: make lock"; exit 1; }

format: env ## Format the code.
	@$(BIN)/ruff format --quiet . && $(BIN)/ruff check --quiet --fix .

generate: env ## Write the generated files anew: catalogue, CRD, JSON Schema, docs/manifest.md.
	@$(BIN)/python -m docs.generate

lock: $(UV) ## Resolve requirements.lock anew.
	@$(COMPILE) -o requirements.lock

bench: env ## Run the benchmarks: tables of ratios against named peers (three hours).
	@$(BIN)/python -m bench.startup
	@$(BIN)/python -m bench.steps
	@$(BIN)/python -m bench.save_cost
	@$(BIN)/python -m bench.step_during_upload
	@$(BIN)/python -m bench.agreement
	@$(BIN)/python -m bench.upload
	@$(BIN)/python -m bench.restore
	@$(BIN)/python -m bench.kills

bench-cluster: env ## The benchmarks of the operator, on the cluster of `make cluster` (an hour).
	@$(BIN)/python -m bench.apply
	@$(BIN)/python -m bench.recovery
	@$(BIN)/python -m bench.control_plane

cluster: env ## Raise a real Kubernetes of two nodes on this Linux machine (root): docs/development.md.
	@$(BIN)/python -m tests.bed up

cluster-env: | $(STAMP) ## What a shell needs to use it: eval "$(make --silent cluster-env)".
	@$(BIN)/python -m tests.bed env

cluster-down: | $(STAMP) ## End it, and leave the machine as it was.
	@$(BIN)/python -m tests.bed down

image: env ## Build the trainer's image, whole.
	@$(BIN)/python -m tests.bed image

clean: ## Remove .venv and what runs and builds have left here.
	@rm -rf .venv .cache .mypy_cache .pytest_cache .ruff_cache data runs
