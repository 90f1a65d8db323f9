# Mangrove's commands. The work is in scripts/; every cargo call goes through scripts/cargo.sh with --release, so that RocksDB is
# compiled once.
SHELL := bash
.DEFAULT_GOAL := help
.PHONY: help demo build test sim conformance chaos lint deploy-check doc env bench bench-peers clean

cargo := scripts/cargo.sh
all := --release --locked --workspace

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build ## everything on this machine, no other part needed (ARGS='...' goes to `mangrove demo`)
	target/release/mangrove demo $(ARGS)

build: ## installs what is missing, then builds (the first time 25 minutes on 2 cores, nearly all of it RocksDB)
	@scripts/timed.sh set-up scripts/setup.sh build
	@scripts/timed.sh build $(cargo) build $(all)

test: ## all tests, against a real Kafka, and all lints (TEST=name: only tests whose name contains it, no lints)
	@scripts/test.sh $(TEST)

sim: ## the simulation (SEEDS=10000 lives; SEED=n repeats one, step by step; BUG=name plants those of tests/sim/planted, BUG=all each)
	@scripts/sim.sh

conformance: ## the suite that every broker, backend and tier must pass
	@scripts/test.sh conformance

chaos: ## three instances on a real Kafka under load and faults (MINUTES=4, SEED=, FAULTS=kill,broker,..., RATE=1000, STANDBYS=0)
	@MANGROVE_CHAOS_MINUTES=$(or $(MINUTES),4) $(if $(SEED),MANGROVE_SEED=$(SEED)) $(if $(FAULTS),MANGROVE_CHAOS_FAULTS=$(FAULTS)) \
	  $(if $(RATE),MANGROVE_CHAOS_RATE=$(RATE)) $(if $(STANDBYS),MANGROVE_CHAOS_STANDBYS=$(STANDBYS)) scripts/test.sh chaos_under

lint: ## rustfmt, shellcheck, cargo-deny, clippy, rustdoc
	@scripts/lint.sh

deploy-check: ## Dockerfile, docker-compose.yml and deploy/, as far as can be without a container engine
	@scripts/timed.sh deployment scripts/deploy.sh

env: ## writes .env with fresh secrets for docker-compose.yml
	@scripts/env.sh

doc: ## the API documentation, in target/doc
	@scripts/timed.sh doc $(cargo) doc $(all) --no-deps

bench: ## the benches (BENCH=name: only those whose name contains it)
	@scripts/timed.sh bench $(cargo) bench --profile release --locked --workspace -- $(BENCH)

bench-peers: ## Mangrove beside Kafka Streams, Flink and a bare librdkafka client, interleaved (PEERS=, ROUNDS=)
	@benches/peers/run.sh

clean: ## removes what tests and measurements left; `cargo clean` removes the compiled code too
	@scripts/testbed.sh down
	rm -rf target/testbed target/peers target/tools target/*.log target/steps.tsv target/skips.txt
