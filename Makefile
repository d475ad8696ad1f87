# Targets are the project's whole interface for people: `make` lists them.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PROTOS := noisegate/enforcement/nri/nri.proto noisegate/enforcement/nri/ttrpc.proto
PLAIN  := not (apiserver or runtime or node or cluster)

# Real machines of several programs on two cores, emulated ones among them: what fails is tried once more, and said so.
define tier
$(BIN)/python -m pytest $(1) || { echo; echo "what failed is tried once more"; $(BIN)/python -m pytest $(1) --last-failed --last-failed-no-failures=none; }
endef

.DEFAULT_GOAL := help
.PHONY: help run test test-apiserver test-image test-runtime test-node test-cluster test-rdt binaries quick check fmt lint types layers docs docs-check bench bench-quick bench-cluster bench-node wheel images clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(READY) ## start the admission server, send the example pods through it over TLS, show what came out
	$(BIN)/noisegate demo

test: $(READY) ## run all tests and measure what they cover (about 5 minutes)
	@$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -m "$(PLAIN)"
	@$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

test-apiserver: $(READY) ## run the tests against a real etcd and kube-apiserver (built once, about 10 minutes)
	PYTHONPATH=tests/support $(BIN)/python -m binaries control-plane
	$(call tier,-m apiserver tests/apiserver)

test-image: images ## run what make images has built, as its user on a read-only root (root)
	NOISEGATE_IMAGE=dist/noisegate.oci.tar $(BIN)/python -m pytest tests/deploy/test_built_image.py

test-runtime: $(READY) ## run the tests against a real containerd in namespaces (root; built once, about 2 minutes)
	PYTHONPATH=tests/support $(BIN)/python -m binaries runtime
	$(call tier,-m runtime tests/runtime)

test-node: $(READY) ## run the tests in an emulated machine with systemd and cgroup v2 (root; built once, about 3 minutes)
	PYTHONPATH=tests/support $(BIN)/python -m binaries runtime
	$(call tier,-m node tests/node)

test-cluster: $(READY) ## run the tests with a kubelet in that machine: pods applied, scheduled, limited, measured (root)
	PYTHONPATH=tests/support $(BIN)/python -m binaries
	$(call tier,-m cluster tests/wholecluster)

test-rdt: $(READY) ## run the RDT tests on this machine's own resctrl (root; only groups noisegate-test-* are made)
	NOISEGATE_RDT=1 $(BIN)/python -m pytest tests/enforcement/kernel/test_resctrl.py tests/enforcement/test_rdt.py

binaries: $(READY) ## build the programs that the tests need into a cache, once (about 10 minutes)
	PYTHONPATH=tests/support $(BIN)/python -m binaries

quick: $(READY) ## run all tests, without measuring
	$(BIN)/python -m pytest -m "$(PLAIN)"

check: lint types layers docs-check ## everything about the code that needs no run: lint, types, import contracts, generated docs

fmt: $(READY) ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(READY)
	$(BIN)/mypy

layers: $(READY)
	$(BIN)/lint-imports

docs: $(READY) ## write what is generated: pages of docs/, deploy/base/webhooks.yaml, protobuf modules
	$(BIN)/noisegate problems --markdown > docs/problems.md
	$(BIN)/noisegate metrics --markdown > docs/metrics.md
	$(BIN)/noisegate registration > deploy/base/webhooks.yaml
	cp mutations.yaml deploy/base/config/mutations.yaml
	$(BIN)/protoc -I. --python_out=. --pyi_out=. $(PROTOS)
	$(BIN)/protoc -Itests/support --python_out=tests/support --pyi_out=tests/support containerd/cri.proto

docs-check: $(READY)
	@$(BIN)/noisegate problems --markdown | diff -u docs/problems.md - || { echo "docs/problems.md is stale: run make docs"; exit 1; }
	@$(BIN)/noisegate metrics --markdown | diff -u docs/metrics.md - || { echo "docs/metrics.md is stale: run make docs"; exit 1; }
	@$(BIN)/noisegate registration | diff -u deploy/base/webhooks.yaml - || { echo "deploy/base/webhooks.yaml is stale: run make docs"; exit 1; }
	@made=$$(mktemp -d) && $(BIN)/protoc -I. --python_out=$$made --pyi_out=$$made $(PROTOS) && \
		diff -u enforcement/nri/nri_pb2.py $$made/noisegate/enforcement/nri/nri_pb2.py && \
		diff -u enforcement/nri/ttrpc_pb2.py $$made/noisegate/enforcement/nri/ttrpc_pb2.py || { echo "enforcement/nri/*_pb2.py is stale: run make docs"; exit 1; }; \
		rm -r $$made
	@diff -u mutations.yaml deploy/base/config/mutations.yaml || { echo "deploy/base/config/mutations.yaml is stale: run make docs"; exit 1; }

bench: $(READY) ## measure the admission server against a no-op in the same run (about 4 minutes)
	$(BIN)/python -m bench

bench-quick: $(READY) ## the same in half a minute, for a first impression
	$(BIN)/python -m bench --quick

bench-cluster: $(READY) ## measure what creating a pod costs in a real API server (about 4 minutes)
	$(BIN)/python -m bench.creation

bench-node: $(READY) ## measure what the enforcer costs a node (root, about 4 minutes)
	$(BIN)/python -m bench.node

wheel: $(READY) ## build the wheel into dist/
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

images: wheel ## build an OCI archive from a Debian tree and wheels, without a registry, into dist/
	@command -v mmdebstrap >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq --no-install-recommends mmdebstrap >/dev/null; } || { echo "apt-get install mmdebstrap"; exit 1; }
	$(BIN)/python deploy/image --wheel $$(ls -t dist/noisegate-*.whl | head -n 1) --archive dist/noisegate.oci.tar

clean: ## remove what make made
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* .import_linter_cache

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "noisegate needs Python 3.11 or newer: make PYTHON=python3.12"; exit 1; }
	@echo "installing into $(VENV) ..."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[webhook,controller,node,dev]'
	@touch $@
