# Seamark. `make demo` and `make test` do all their set-up on a fresh machine with Rust.
#
# One cargo profile (release) and one feature selection (the whole workspace) serve everything, so
# that RocksDB is compiled once.

CARGO ?= cargo
CARGO_FLAGS = --release --workspace --locked
# Keep a build cache outside the checkout by setting CARGO_TARGET_DIR, or by making this folder.
CACHE = $(HOME)/.cache/seamark/target
ifneq ($(wildcard $(CACHE)),)
export CARGO_TARGET_DIR ?= $(CACHE)
endif
TARGET = $(or $(CARGO_TARGET_DIR),target)/release
export SEAMARK_BIN = $(abspath $(TARGET))/seamark

# What computes for minutes: the simulator and the model.
LONG_TESTS = --test smoke --test harness --test regressions --test commit_model

# What has to happen in long runs in which shards are cut and joined and nodes come and go.
EVENTS = halves,joined,reseated,comings,epochs,stale_routes,vectors_across

.PHONY: help setup build demo test format lint unit sim replay soak fix

help: ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 20

setup: ## Install the system packages that the build needs
	@scripts/setup

build: setup ## Build the seamark binary
	$(CARGO) build $(CARGO_FLAGS) --bins

demo: build ## Start a cluster on this machine and settle a real Bitcoin block on it
	$(TARGET)/seamark demo

test: setup format lint unit ## Everything that has to hold before a change lands

format:
	$(CARGO) fmt --all --check

lint: setup
	$(CARGO) clippy $(CARGO_FLAGS) --all-targets -- -D warnings
	$(CARGO) clippy $(CARGO_FLAGS) --test all $(LONG_TESTS) -- -D warnings

# Unit, property, vector and simulator tests, purity, layering and process tests.
unit: setup
	LONG_TESTS="$(LONG_TESTS)" scripts/tests $(CARGO) $(CARGO_FLAGS)

sim: build ## Run 200 seeds of the simulator
	$(TARGET)/seamark sim --seeds 200

# No data comes with the sources: DATA, OPENING and ORACLE are paths to a history, its opening balances and the
# right results; `seamark replay --help` says what they look like.
replay: build ## Replay DATA with OPENING on 1, 4 and 16 shards and compare with ORACLE
	@test -f "$(DATA)" && test -f "$(OPENING)" && test -f "$(ORACLE)" || \
	  { echo "usage: make replay DATA=history.csv.gz OPENING=opening.csv.gz ORACLE=oracle.json"; exit 2; }
	set -e; for shards in 1 4 16; do \
	  $(TARGET)/seamark replay "$(DATA)" --opening "$(OPENING)" --oracle "$(ORACLE)" --shards $$shards; done

soak: build $(if $(DATA),replay) ## Long runs: the larger models, many simulator seeds, the benchmarks, and with DATA a replay
	SEAMARK_SOAK=1 RUST_TEST_THREADS=1 $(CARGO) test $(CARGO_FLAGS) --test commit_model
	$(TARGET)/seamark sim --seeds 10000
	$(TARGET)/seamark sim --seeds 1000 --reshapes 3 --moves 2 --comings 8 --epochs 1 --met $(EVENTS)
	$(TARGET)/seamark sim --seeds 300 --consensus bft --reshapes 3 --moves 2 --comings 8 --epochs 1 --met $(EVENTS),lies
	$(TARGET)/seamark sim --seeds 200 --removals 2 --shards 3 --met accused,struck_off,slanders,late_ballots,reseated
	$(TARGET)/seamark sim --scale --nodes 4096 --shards 512 --cross 10 --zipf 1 --local-every 16 --efficiency-at-least 0.95
	$(TARGET)/seamark bench --shards 1 --seconds 30 --at-least 0.15
	$(TARGET)/seamark bench --shards 2 --cross 100 --seconds 30 --at-least 0.09
	$(TARGET)/seamark bench --shards 1 --verify every --seconds 30 --at-least 0.25
	$(TARGET)/seamark bench --shards 2 --voters 2 --seconds 30 --at-least 0.04
	$(TARGET)/seamark bench --channels 8 --seconds 30 --in-flight 60000 --together-at-least 1 --swap-at-most 2.5
	$(TARGET)/seamark bench --join --join-at-most 30
	$(TARGET)/seamark bench --engines --seconds 30 --at-least 0.3 --latency-at-most 4 --without-one-at-least 0.5 --gap-at-most 3 --later-gap-at-most 1
	$(TARGET)/seamark bench --switch --seconds 30 --pause-at-most 2
	$(TARGET)/seamark bench --takeover --takeover-at-most 60 --rate-at-least 0.7
	$(TARGET)/seamark bench --reshape --in-flight 64 --pause-at-most 0.3 --worst-at-most 1 --others-at-least 0.9
	scripts/flat-cost $(TARGET)/seamark
	SEAMARK_TIER2_SEEDS=200 RUST_TEST_THREADS=1 $(CARGO) test $(CARGO_FLAGS) --test all -- tier2:: --nocapture
	SEAMARK_LEADER_KILLS=20 RUST_TEST_THREADS=1 $(CARGO) test $(CARGO_FLAGS) --test all -- failover:: --nocapture
	SEAMARK_BANK_ROUNDS=20 RUST_TEST_THREADS=1 $(CARGO) test $(CARGO_FLAGS) --test all -- bank:: --nocapture
	SEAMARK_TEST_NETWORK=proxies RUST_TEST_THREADS=1 $(CARGO) test $(CARGO_FLAGS) --test all -- bank:: cuts:: --nocapture

fix: ## Format the code
	$(CARGO) fmt --all
