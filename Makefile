# One way to do each thing. Needs python3 and make; see CONTRIBUTING.md.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: help setup demo image image-context test test-all mutants real test-kubernetes test-vm bench soak lint format protos schema docs clean

help: ## what there is
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile

setup: $(VENV)/.ready ## the virtual environment in .venv

$(VENV)/.ready: pyproject.toml constraints.txt tests/lab/venv.sh
	@sh tests/lab/venv.sh $(PYTHON) $(VENV)
	@touch $@

demo: $(VENV)/.ready ## a node that breaks, and what janitor says about it
	@$(BIN)/python -m tests.lab.demo

test: $(VENV)/.ready ## every test without a node, and what the README promises on real ones (three minutes)
	@$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not system or promise"

test-all: $(VENV)/.ready ## every test this machine can run, except the long ones on a real Kubernetes (20 minutes)
	@$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not long"

mutants: $(VENV)/.ready ## faults put into the rule by hand: does a quick test notice each of them? (three minutes)
	@$(BIN)/python -m tests.mutants

real: $(VENV)/.ready ## today's Kubernetes, containerd, CNI plugins and kube-router, built with this machine's Go once
	@$(BIN)/python -m tests.lab.programs

test-kubernetes: real ## real clusters: the incident, churn, kube-router, address plans
	@JANITOR_REQUIRE_REAL=1 $(BIN)/python -m pytest -n 2 --dist loadfile tests/kubernetes

bench: $(VENV)/.ready ## figures, side by side in one run
	@$(BIN)/python -m tests.bench.rules
	@$(BIN)/python -m tests.bench.idle
	@$(BIN)/python -m tests.bench.pod_start

soak: $(VENV)/.ready ## two hours of a node's life in a quarter of an hour: has the daemon grown, was anything lost?
	@$(BIN)/python -m tests.bench.soak

lint: $(VENV)/.ready ## style, types, direction of imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

format: $(VENV)/.ready ## rewrite the sources as ruff likes them
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

protos: $(VENV)/.ready ## the protobuf stubs, after a change in protos/
	@$(BIN)/python -m grpc_tools.protoc -Ijanitor/host/runtime=protos --python_out=agent --pyi_out=agent protos/cri.proto protos/containerd.proto

schema: $(VENV)/.ready ## the published JSON schemas, after a change of the report's types
	@$(BIN)/python -m janitor.report.document > agent/janitor/report/schema.json
	@$(BIN)/python -m janitor.report.cidr_document > agent/janitor/report/cidr.schema.json

docs: $(VENV)/.ready ## the tables in docs/, after a change of what they are made from
	@$(BIN)/python -m janitor.report.findings_page > docs/findings.md
	@$(BIN)/python -m janitor.report.event_table > docs/log-events.md

image-context: $(VENV)/.ready ## dist/wheels and dist/packages, from which the Dockerfile builds without a network
	@$(BIN)/python -m tests.lab.container_image context dist

image: $(VENV)/.ready ## the container image, built by buildah without a registry, as an OCI archive in dist
	@mkdir -p dist
	@made="$$($(BIN)/python -m tests.lab.container_image)" && cp "$$made" dist/janitor.tar && echo dist/janitor.tar

test-vm: $(VENV)/.ready ## real power cuts and a clock that is set, in qemu (forty minutes)
	@$(BIN)/python -m tests.lab.vm
	@$(BIN)/python -m tests.lab.vm_clock

clean: ## everything made here
	@rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis dist
