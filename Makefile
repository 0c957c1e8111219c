# One door to everything that a person or CI runs; `make help` lists it.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

# The locks hold for 3.11 and 3.12.
PYTHON ?= $(firstword $(foreach name,python3.11 python3,$(shell command -v $(name))))
VENV := $(CURDIR)/.venv
STATE := $(CURDIR)/.aitp
AIRFLOW := $(VENV)/airflow/bin
WORKER := $(VENV)/worker/bin
UV := $(VENV)/tools/bin/uv

# Stamps carry a digest of what they were made from: a checkout changes times, not contents.
digest = $(shell cat $(1) | sha256sum | cut -c1-16)
INSTALL := requirements/install.sh requirements/links.sh requirements/tools.txt
AIRFLOW_LOCKS := requirements/airflow.txt requirements/airflow-dev.txt
# The worker's environment is the GPUs' once `make setup-gpu` has made that, else the processors'.
DEVICE ?= $(if $(wildcard $(VENV)/worker/stamp-gpu-*),gpu,cpu)
WORKER_LOCKS_cpu := requirements/torch-cpu.txt requirements/worker-cpu.txt requirements/worker-dev.txt
WORKER_LOCKS_gpu := requirements/worker-gpu.txt
WORKER_LOCKS := $(WORKER_LOCKS_$(DEVICE))
PEERS_LOCKS := requirements/torch-cpu.txt requirements/peers.txt
TOOLS_STAMP := $(VENV)/tools/stamp-$(call digest,requirements/tools.txt)
AIRFLOW_STAMP := $(VENV)/airflow/stamp-$(call digest,$(INSTALL) $(AIRFLOW_LOCKS))
WORKER_STAMP := $(VENV)/worker/stamp-$(DEVICE)-$(call digest,$(INSTALL) $(WORKER_LOCKS))
PEERS_STAMP := $(VENV)/peers/stamp-$(call digest,$(INSTALL) $(PEERS_LOCKS))
PROJECT_STAMPS := $(foreach name,airflow worker,$(VENV)/$(name)/project-$(call digest,pyproject.toml))
OPERATOR_STAMP := $(VENV)/worker/operator-$(call digest,$(INSTALL) $(WORKER_LOCKS) aitp_tasks/training/operators.py)
FETCH_STAMP := $(STATE)/downloads/stamp-$(call digest,requirements/demo-data.txt requirements/fetch.sh)
PREPARE_STAMP := $(STATE)/stamp-$(call digest,requirements/demo-data.txt requirements/worker-cpu.txt demo/prepare.py)

.PHONY: help setup setup-gpu lock images-test demo demo-down demo-clean compose-env test test-fast bench-embed bench-difference \
    bench-rewrite bench-train bench-gpu bench-orchestration experiment format check lint types docs pictures

help: ## Show this list
	@grep -hE '^[a-z%-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(PROJECT_STAMPS) $(if $(filter cpu,$(DEVICE)),$(OPERATOR_STAMP)) $(PREPARE_STAMP) ## Environments, object store, models and data

# `make setup DEVICE=cpu` goes back.
setup-gpu: ## The same with the GPU worker, after a look at driver, GPUs, shared memory and disk
	@$(PYTHON) requirements/gpu.py $(VENV)
	@$(MAKE) --no-print-directory setup DEVICE=gpu

$(TOOLS_STAMP):
	@echo "setup: tools"
	@test -n "$(PYTHON)" || { echo "error: no python3.11 or python3 on PATH: install Python 3.11"; exit 1; }
	@rm -rf $(VENV)/tools
	@$(PYTHON) -m venv $(VENV)/tools
	@$(VENV)/tools/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/tools.txt
	@touch $@

$(AIRFLOW_STAMP): | $(TOOLS_STAMP)
	@echo "setup: airflow environment"
	@requirements/install.sh $(VENV)/airflow $(PYTHON) $(AIRFLOW_LOCKS)
	@touch $@

$(WORKER_STAMP): | $(TOOLS_STAMP)
	@echo "setup: worker environment"
	@requirements/install.sh $(VENV)/worker $(PYTHON) $(WORKER_LOCKS)
	@touch $@

# DeepSpeed compiles its shared-memory operator at first use; here, so that no task waits for it.
$(OPERATOR_STAMP): $(PROJECT_STAMPS)
	@echo "setup: DeepSpeed operator"
	@$(WORKER)/python -c "from aitp_tasks.training import operators; operators.build()" >$(VENV)/worker/operator.log 2>&1 \
	    || { cat $(VENV)/worker/operator.log; exit 1; }
	@touch $@

# The project itself, editable: `import aitp_tasks` in both, the `aitp` command in the worker.
$(PROJECT_STAMPS): $(AIRFLOW_STAMP) $(WORKER_STAMP)
	@$(UV) pip install --quiet --python $(@D)/bin/python --no-deps --no-build-isolation --editable .
	@rm -f $(@D)/project-*
	@touch $@

$(FETCH_STAMP): | $(TOOLS_STAMP)
	@echo "setup: downloads"
	@requirements/fetch.sh $(VENV)/tools $(STATE)/downloads
	@rm -f $(STATE)/downloads/stamp-*
	@touch $@

$(PREPARE_STAMP): $(FETCH_STAMP) | $(PROJECT_STAMPS)
	@echo "setup: models and data"
	@$(WORKER)/python -m demo.prepare $(STATE)
	@rm -f $(STATE)/stamp-*
	@touch $@

lock: $(TOOLS_STAMP) ## Compile requirements/ from pyproject.toml
	@$(PYTHON) requirements/lock.py $(UV) $(VENV)/tools/bin/pip

images-test: $(TOOLS_STAMP) ## Build the container images for processors on a base made here, and run them; root
	@docker/test $(STATE) $(VENV)/tools/bin/pip

demo: setup ## Run the whole pipeline on real input; leaves Airflow and the store running
	@$(AIRFLOW)/python -m demo.run

demo-down: ## Stop what the demo left running
	@if [ -x $(AIRFLOW)/python ]; then $(AIRFLOW)/python -m demo.services stop; fi

demo-clean: demo-down ## Stop the demo and remove its state
	@rm -rf $(STATE)/demo

compose-env: ## Write the secrets of docker-compose.yaml into .env, those that are not there
	@$(PYTHON) docker/env.py .env

# Start ranks of a training; beside the other slow tests once Airflow's, which mostly wait, are done.
TRAINING_TESTS := tests/aitp_tasks/training $(wildcard tests/aitp_tasks/stages/test_finetune*.py) \
    tests/aitp_tasks/stages/test_evaluate.py

test: setup ## All tests, in both environments, in two rows side by side
	@rm -rf $(STATE)/junit && mkdir -p $(STATE)/junit
	@{ $(AIRFLOW)/python -m pytest $(wildcard tests/plugins tests/dags tests/demo tests/docker tests/e2e) \
	    --junitxml=$(STATE)/junit/airflow.xml || true; \
	    $(WORKER)/python -m pytest -m "slow and not side_by_side" $(TRAINING_TESTS) \
	    --junitxml=$(STATE)/junit/training.xml; } > $(STATE)/junit/beside.txt 2>&1 & beside=$$!; \
	trap "kill $$beside 2>/dev/null || true" EXIT; \
	$(WORKER)/python -m pytest -n auto -m "not slow or side_by_side" tests/aitp_tasks tests/docs tests/setup \
	    --junitxml=$(STATE)/junit/side-by-side.xml || true; \
	$(WORKER)/python -m pytest -m "slow and not side_by_side" tests/aitp_tasks tests/docs \
	    $(addprefix --ignore=,$(TRAINING_TESTS)) --junitxml=$(STATE)/junit/worker.xml || true; \
	wait $$beside || true; cat $(STATE)/junit/beside.txt; \
	$(WORKER)/python .ci/summary.py $(addprefix $(STATE)/junit/,side-by-side.xml worker.xml airflow.xml training.xml)

test-fast: setup ## The tests without servers and vLLM, on all cores: some minutes on two
	@$(WORKER)/python -m pytest -n auto -m "not slow" tests/aitp_tasks tests/docs tests/setup
	@$(AIRFLOW)/python -m pytest -n auto -m "not slow" tests/plugins tests/dags tests/docker

$(PEERS_STAMP): | $(TOOLS_STAMP)
	@echo "setup: peers"
	@requirements/install.sh $(VENV)/peers $(PYTHON) $(PEERS_LOCKS)
	@touch $@

bench-embed: setup $(PEERS_STAMP) ## The embed stage against other embedders; PARTS="speed memory kills reuse formats host"
	@$(WORKER)/python benchmarks/embed.py $(PARTS)

bench-difference: setup $(PEERS_STAMP) ## Densities against other libraries; PARTS="peers growth far sanity index fetch search nights"
	@$(WORKER)/python benchmarks/difference.py $(PARTS)

bench-rewrite: setup ## The prompt stages against bare vLLM and the published loop; PARTS="raw prefix loop kills deaths busy repeat"
	@$(WORKER)/python benchmarks/rewrite.py $(PARTS)

bench-train: setup ## Training against TRL's defaults, and after kills; PARTS="speed losses resume"
	@$(WORKER)/python benchmarks/train.py $(PARTS)

bench-gpu: setup ## One GPU: embedding, k-means, neighbours, training; PARTS="embed kmeans knn train"
	@$(WORKER)/python benchmarks/gpu.py $(PARTS)

experiment: setup ## Base, SFT set alone, AITP and controls on held-out data; hours, goes on where it was stopped
	@$(WORKER)/python benchmarks/experiment.py

bench-orchestration: setup ## What Airflow and the DAG add to the work; PARTS="parse units celery noop", noop after make demo
	@$(AIRFLOW)/python benchmarks/orchestration.py $(PARTS)

bench-%: setup ## Run benchmarks/NAME.py; its last line is one JSON object
	@$(WORKER)/python benchmarks/$(subst -,_,$*).py

format: $(PROJECT_STAMPS) ## Format the code
	@$(AIRFLOW)/ruff format .
	@$(AIRFLOW)/ruff check --fix --select I .

check: lint types ## What pre-commit runs: format, style, walls and types, nothing changed

lint: $(PROJECT_STAMPS) ## Check format, style and the walls between the rooms of aitp_tasks/
	@$(AIRFLOW)/ruff format --check .
	@$(AIRFLOW)/ruff check .
	@$(AIRFLOW)/lint-imports --no-cache --no-logo

types: $(PROJECT_STAMPS) ## Check types, each part in its own environment
	@$(WORKER)/mypy aitp_tasks demo/prepare.py docs/generate.py requirements/gpu.py requirements/lock.py docker/in_image/embed.py docker/in_image/operators.py
	@$(AIRFLOW)/mypy plugins dags docker/*.py docker/in_image/dags.py demo/services.py demo/run.py

pictures: demo ## Make the pictures in docs/pictures/ anew: of the demo, and of Airflow's forms
	@AITP_PICTURES=$(CURDIR)/docs/pictures $(AIRFLOW)/python -m tests.e2e.pictures
	@AITP_PICTURES=$(CURDIR)/docs/pictures $(AIRFLOW)/python -m pytest tests/e2e/test_browser.py

docs: $(PROJECT_STAMPS) ## Write what docs/ takes from the code: docs/reference/ and the picture of the walls
	@$(WORKER)/python -m docs.generate
