# Every target does one thing; `make help` lists them.

CARGO := scripts/cargo
# What the tests are built with; `make build FEATURES="--features tpm"` makes a program for a TPM.
HARDWARE := --features tpm,yubikey
FEATURES :=
TARGET := $(or $(CARGO_TARGET_DIR),target)
PYTHON := .venv/bin/python
# The client tests mostly wait, so that three processes are well for two processors. A file stays together and in
# its order: its tests share an appliance.
SIDE_BY_SIDE := --numprocesses 3 --dist loadfile
# The tests build it by themselves.
SHIM := --manifest-path tests/shim/Cargo.toml

# The TSS writes each failed command to stderr, and the tests let hundreds fail.
export TSS2_LOG ?= all+NONE

.DEFAULT_GOAL := help
.PHONY: help run test setup setup-test lint shell-lint fmt deny unit clients client-python client-rust \
	kryoptic piv-card requirements bench fuzz fuzz-check docs-check build install clean

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 16

run: setup ## Serve from ./data (or STRONGROOM_HOME), which is made at the first run
	$(CARGO) build --release --locked $(FEATURES)
	scripts/run $(TARGET)/release/strongroom

# The client tests come before the crate's own, so that the output ends in cargo's summary.
test: setup-test ## All tests: lints, dependencies, clients, the crate's own
	$(MAKE) --no-print-directory lint
	scripts/deny --optional
	$(MAKE) --no-print-directory clients
	$(MAKE) --no-print-directory unit

setup: ## Install what `make run` needs
	scripts/setup run

setup-test: ## Install what `make test` needs
	scripts/setup test

lint: shell-lint ## Formatting and lints, warnings are errors
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets $(HARDWARE) -- -D warnings
	$(CARGO) clippy --locked -- -D warnings
	$(CARGO) fmt --check $(SHIM)
	$(CARGO) clippy --locked $(SHIM) --target-dir $(TARGET)/tmp/shim -- -D warnings

shell-lint: ## shellcheck over the scripts, if it is installed
	@if command -v shellcheck >/dev/null; then shellcheck scripts/* .ci/run; \
	else echo "NOT CHECKED: shell scripts (no shellcheck)" >&2; fi

fmt: ## Format the code
	$(CARGO) fmt
	$(CARGO) fmt $(SHIM)

deny: ## Dependencies: licences, sources, duplicates, advisories
	scripts/deny

unit: ## The crate's own tests
	$(CARGO) test --locked $(HARDWARE)

clients: client-python client-rust ## Black-box tests with unmodified AWS clients (after setup-test)

client-python: ## Those with the AWS CLI and boto3
	$(CARGO) build --locked $(HARDWARE)
	STRONGROOM_BIN=$(TARGET)/debug/strongroom $(PYTHON) -m pytest tests/clients $(SIDE_BY_SIDE)

client-rust: ## Those with the AWS SDK for Rust; its first build takes a minute or two
	$(CARGO) build --locked $(HARDWARE)
	scripts/client-rust $(TARGET)

piv-card: ## Build the virtual card that stands in for a YubiKey (`setup-test` does)
	scripts/piv-card $(TARGET)

kryoptic: ## Build the second token that the tests run on (`setup-test` does)
	scripts/kryoptic $(TARGET)

requirements: ## Pin anew what the client tests need (wants pip-compile)
	cd tests/clients && pip-compile --quiet --upgrade --generate-hashes --strip-extras \
		--no-emit-find-links --no-emit-index-url --no-header \
		--output-file requirements.txt requirements.in

bench: ## Benchmarks
	$(CARGO) bench --locked

fuzz: ## Fuzz each parser of untrusted bytes for a minute; the first build takes some
	scripts/fuzz

fuzz-check: ## Whether the fuzz targets still compile
	$(CARGO) check --locked --manifest-path fuzz/Cargo.toml

docs-check: ## Rust documentation without warnings, Markdown without dead links
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked $(HARDWARE) --no-deps --document-private-items
	scripts/check-links

build: ## The release binary; FEATURES="--features tpm,yubikey" for such hardware
	$(CARGO) build --release --locked $(FEATURES)

install: ## Install the release binary and its system files (DESTDIR is respected)
	scripts/install $(TARGET)/release/strongroom

clean: ## Remove what was built; never the data directory
	$(CARGO) clean
	rm -rf .venv
