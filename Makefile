# Two commands do everything on a fresh machine: `make demo` and `make test`.
# One profile (dev, optimised) and one target directory outside the checkout serve all of them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

cache := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)
export CARGO_TARGET_DIR ?= $(cache)/themis/target
bin := $(CARGO_TARGET_DIR)/debug

# What every tier has to do alike.
every_tier := binary(it) and test(/^(bad_input|budget|concurrency|hooks|lifecycle|overload|probation|sets|state|supervision|watchdog)::/)

.PHONY: help setup guests build demo test lint bench

help: ## Show what can be made
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

setup: ## Install what is missing (clang and lld for RocksDB's bindings, Rust for wasm, cargo-nextest)
	@.ci/setup

guests: setup ## Build the example plugins for wasm
	.ci/wasm-guests

build: guests ## Build the program, the example plugins, the tests and the benches once
	cargo build --workspace --all-targets --locked

demo: build ## Run the demo: make demo ARGS=--once
	$(bin)/themis demo $(ARGS)

# Compiled once, for the guest kernel as well.
export THEMIS_FIXTURES := $(CARGO_TARGET_DIR)/fixtures

test: build ## Run every test, the examples in the documentation and the guest kernel included
	@mkdir -p $(THEMIS_FIXTURES)
	@if cargo nextest --version >/dev/null 2>&1; then \
	  cargo nextest run --workspace --locked; \
	  echo "once more, with plugins in worker processes:"; \
	  THEMIS_TEST_TIER=process cargo nextest run --workspace --locked -E '$(every_tier)'; \
	  echo "and once more, as wasm:"; \
	  THEMIS_TEST_TIER=wasm cargo nextest run --workspace --locked -E '$(every_tier)'; \
	else \
	  echo "cargo-nextest is missing: one process per test is needed, so cargo test runs one thread per binary"; \
	  cargo test --workspace --lib --bins --tests --locked -- --test-threads=1; \
	fi
	cargo test --workspace --doc --locked
	.ci/guest-tests

lint: setup ## Formatting, clippy and documentation, warnings denied
	cargo fmt --all -- --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

bench: build ## Measure the promised numbers: one table
	cargo build --manifest-path benches/peers/Cargo.toml --target-dir $(CARGO_TARGET_DIR)/peers --locked
	$(bin)/themis-benches $(ARGS)
