# What people type. Each target is one line that calls a script or cargo; `make run` needs only
# Rust (https://rustup.rs) on a Debian machine and installs the rest.

# As tests have them, with the same features of libraries: nothing is compiled twice.
PROGRAMS := cargo build --workspace --bins --tests --locked
DATA ?= ./data
# Where the server listens: 8008, or what its configuration says.
PORT ?=

.PHONY: help run test lint fuzz complement interop bench

help:
	@echo "make run         build a release and start a homeserver in $(DATA)"
	@echo "make test        all tests: Rust, scripts, real clients"
	@echo "make lint        formatting, clippy, licences, documentation"
	@echo "make fuzz        mutated input for the parsers, half a minute"
	@echo "make complement  the Matrix conformance suite"
	@echo "make interop     rooms shared with a real Synapse"
	@echo "make bench       the benchmarks of the store and of sync"

run:
	@scripts/install-missing run
	cargo build --release --locked
	@scripts/run "$(DATA)" "$(PORT)"

test:
	@scripts/install-missing test
	@scripts/test

lint:
	@scripts/install-missing lint
	@scripts/lint

fuzz:
	@scripts/install-missing test
	$(PROGRAMS)
	"$${CARGO_TARGET_DIR:-target}/debug/millrace-fuzz" --seconds 5

complement:
	@scripts/install-missing test
	$(PROGRAMS)
	complement-tests/run

interop:
	@scripts/install-missing test
	$(PROGRAMS)
	tests/interop/run

bench:
	@scripts/install-missing run
	cargo bench --workspace --locked
