# The menu: people and CI call the same targets. `make` shows it. PG="15" limits a target to fewer PostgreSQLs.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup build demo test test-unit test-pg test-e2e lint fmt bench clean

help: ## Show this menu
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-10s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what is missing (the other targets do it too)
	@scripts/setup

build: ## Build the extension and install it into the private PostgreSQL 15
	@PG=15 scripts/setup && . scripts/env && cargo pgrx install --no-default-features --features pg15 --pg-config "$$PG_CONFIG"

demo: ## Tell the story of a row change in a private cluster, from commit to a verified webhook
	@scripts/demo

test: ## Everything: format, lints, unit, in-server and end-to-end tests on PostgreSQL 15 to 18
	@scripts/test

test-unit: ## Pure code: no PostgreSQL, seconds
	@cargo test --no-default-features

test-pg: ## Tests that run inside PostgreSQL 15
	@scripts/test pg

test-e2e: ## Real servers, real workers, real sockets
	@scripts/test e2e

lint: ## Formatting and clippy, warnings are errors
	@scripts/test lint

fmt: ## Format the code
	@cargo fmt

bench: ## Measure enqueue cost, drain rate and latency (bench/)
	@bench/enqueue && bench/drain && bench/latency

clean: ## Remove build output; the set-up stays (it is in $WEBHOOK_PG_CACHE, see scripts/env)
	@rm -rf target && . scripts/env && rm -rf "$$WEBHOOK_PG_CACHE/target"
