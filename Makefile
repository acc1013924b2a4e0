# Every target installs what it lacks (Debian packages as root, a message otherwise), and the
# second time works without the network. `make help` lists them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Seed and repetitions of the `show-` targets; empty means the target's own default.
ifneq ($(SEED),)
export SEED
endif
ifneq ($(TIMES),)
export TIMES
endif
ifneq ($(TRACES),)
export TRACES
endif

CARGO ?= cargo
# Programs are built with the features of the whole workspace, as tests are, so that nothing is
# built twice; `cargo run` knows no --workspace.
PROGRAMS := $(or $(CARGO_TARGET_DIR),target)/debug

.PHONY: help
help: ## List the targets.
	@awk -F':.*## ' '/^[a-z0-9%-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: install-deps
install-deps: ## Install the Debian packages that tests need (as root; else say which).
	@tests/cluster/install-deps.sh

.PHONY: programs
programs: install-deps ## Build the programs of the test control plane (about 10 minutes once).
	@tests/cluster/build.sh

.PHONY: build
build: ## Build everything.
	$(CARGO) build --workspace

.PHONY: demo
demo: ## Run the demo in one process, no cluster: DEMO_ARGS='--for 7d --speed max -o json'.
	@$(CARGO) build --quiet --workspace --bin gpu-autoscaler
	@$(PROGRAMS)/gpu-autoscaler demo $(DEMO_ARGS)

.PHONY: test
test: ## Run all tests; REQUIRE_ALL=1 turns every skip, save GPU tests, into a failure.
	@if [[ -n "$${REQUIRE_ALL:-}" ]]; then $(MAKE) --no-print-directory programs; \
	else $(MAKE) --no-print-directory programs || echo 'tests that need the control plane will be skipped' >&2; fi
	$(CARGO) test --workspace --no-fail-fast
	$(MAKE) --no-print-directory test-chronos-portable

.PHONY: lint
lint: ## Formatting, lints, licenses.
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	.ci/licenses

.PHONY: cluster
cluster: programs ## Start the test control plane and print its kubeconfig; Ctrl-C stops it.
	@$(CARGO) build --quiet --workspace --bin cluster
	@$(PROGRAMS)/cluster $(CLUSTER_ARGS)

.PHONY: dev-cluster
dev-cluster: ## The same with 20 GPU nodes and a Prometheus.
	@$(MAKE) --no-print-directory cluster CLUSTER_ARGS='--nodes 20 --prometheus'

.PHONY: image
image: ## Write an OCI image layout of the controller to target/image, without Docker.
	@.ci/image

.PHONY: release
release: ## Write all that a release holds to target/release-files; MACHINES='x86_64 aarch64'.
	@.ci/release

.PHONY: bench
bench: ## Measure; results and their commands are in benches/results/.
	@benches/run

.PHONY: soak
soak: ## The same tests as `test` with large counts: SEED=, TIMES=.
	@.ci/soak

show-%: ## Show line M of an issue's claims: make show-path-2 SEED=7.
	@mkdir -p target/show
	@.ci/show/$*.sh

FUZZ_SECS ?= 60
.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZ_SECS seconds (needs a nightly toolchain).
	@cargo fuzz --version >/dev/null 2>&1 || $(CARGO) install cargo-fuzz --version 0.13.2 --locked
	@for target in exposition quantity plan; do \
	  cargo +nightly fuzz run $$target -- -max_total_time=$(FUZZ_SECS) -print_final_stats=1; done

.PHONY: demo-chronos bench-chronos coverage-chronos soak-chronos
.PHONY: test-chronos-portable test-chronos-windows
test-chronos-portable: ## The tests of Chronos with its half for other systems: TEST_ARGS='kill_points'.
	@.ci/chronos/portable.sh $(TEST_ARGS)

test-chronos-windows: ## Build chronos.exe and run it under Wine (installs MinGW and Wine): SEED=, TIMES=.
	@.ci/chronos/windows.sh

demo-chronos: ## Two users, three jobs, one queue on fake GPUs; ends within a minute.
	@.ci/chronos/demo.sh

bench-chronos: ## Measure Chronos beside other tools: TIMES samples, ROUNDS rounds; RIVALS=0 alone.
	@.ci/chronos/bench.sh

coverage-chronos: ## Line coverage of Chronos by its tests, all processes included; SHOW=1 lists lines.
	@.ci/chronos/coverage.sh

soak-chronos: ## TIMES kill points (a million), HOURS on a virtual clock (24), SECS real seconds (3600).
	@.ci/chronos/soak.sh
