# One way to do each thing. Needs python3 and make; see CONTRIBUTING.md.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: help setup demo image image-context test test-all mutants real test-kubernetes test-vm bench soak lint format protos schema docs clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile

setup: $(VENV)/.ready ## create the virtual environment .venv

$(VENV)/.ready: pyproject.toml constraints.txt tests/lab/venv.sh
	@sh tests/lab/venv.sh $(PYTHON) $(VENV)
	@touch $@

demo: $(VENV)/.ready ## break a test node, and show what janitor reports
	@$(BIN)/python -m tests.lab.demo

test: $(VENV)/.ready ## run all tests that need no node, and what the README promises on real ones (3 minutes)
	@$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not system or promise"

test-all: $(VENV)/.ready ## run all tests that this machine can run, except the long ones on a real Kubernetes (20 minutes)
	@$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not long"

mutants: $(VENV)/.ready ## check that a quick test notices each fault of tests/mutants (3 minutes)
	@$(BIN)/python -m tests.mutants

real: $(VENV)/.ready ## build current versions of Kubernetes, containerd, CNI plugins and kube-router (15 minutes, once)
	@$(BIN)/python -m tests.lab.programs

test-kubernetes: real ## run the tests on real clusters: the incident, churn, kube-router, address plans (25 minutes)
	@JANITOR_REQUIRE_REAL=1 $(BIN)/python -m pytest -n 2 --dist loadfile tests/kubernetes

bench: $(VENV)/.ready ## measure costs and delays, side by side
	@$(BIN)/python -m tests.bench.rules
	@$(BIN)/python -m tests.bench.idle
	@$(BIN)/python -m tests.bench.pod_start

soak: $(VENV)/.ready ## run two hours of node events in 15 minutes: does the daemon grow, is anything lost?
	@$(BIN)/python -m tests.bench.soak

lint: $(VENV)/.ready ## check style, types and the direction of imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

format: $(VENV)/.ready ## format the sources with ruff
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

protos: $(VENV)/.ready ## regenerate the protobuf stubs after a change in protos/
	@$(BIN)/python -m grpc_tools.protoc -Ijanitor/host/runtime=protos --python_out=agent --pyi_out=agent protos/cri.proto protos/containerd.proto

schema: $(VENV)/.ready ## regenerate the JSON schemas after a change of the report types
	@$(BIN)/python -m janitor.report.document > agent/janitor/report/schema.json
	@$(BIN)/python -m janitor.report.cidr_document > agent/janitor/report/cidr.schema.json

docs: $(VENV)/.ready ## regenerate the generated documents in docs/
	@$(BIN)/python -m janitor.report.findings_page > docs/findings.md
	@$(BIN)/python -m janitor.report.event_table > docs/log-events.md

image-context: $(VENV)/.ready ## collect dist/wheels and dist/packages, from which the Dockerfile builds offline
	@$(BIN)/python -m tests.lab.container_image context dist

image: $(VENV)/.ready ## build the container image with buildah, as an OCI archive in dist
	@mkdir -p dist
	@made="$$($(BIN)/python -m tests.lab.container_image)" && cp "$$made" dist/janitor.tar && echo dist/janitor.tar

test-vm: $(VENV)/.ready ## test real power cuts and clock steps in qemu (40 minutes)
	@$(BIN)/python -m tests.lab.vm
	@$(BIN)/python -m tests.lab.vm_clock

clean: ## remove everything that was made here
	@rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis dist
