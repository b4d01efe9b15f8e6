# The names that people, README and CI use. `make` alone lists them.
#
# Real traffic needs network namespaces, so `demo` and `test` need root: sudo make demo, sudo make test.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Finds the calling user's toolchain under sudo, and says how to get one that is new enough.
CARGO := tests/lab/cargo.sh
# The checkout's version is what CI locks: --locked refuses to change Cargo.lock.
LOCKED := --locked
# Two labs at a time: each has a gateway with workers of its own.
LAB_THREADS ?= 2

# What `make fuzz` fuzzes, and for how many seconds.
TARGET   ?= process
DURATION ?= 60

PREFIX  ?= /usr/local
SYSCONF ?= /etc/fullgate
UNITS   ?= /etc/systemd/system
DESTDIR ?=

SCRIPTS := .ci/run hugepage-setup/fullgate-hugepages $(wildcard tests/*.sh tests/lab/*.sh) tests/fuzz/run tests/vm/image tests/vm/init

.PHONY: help build demo demo-end test test-unit test-pure test-root interleave instructions fuzz bench lint fmt perf install uninstall packages

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

packages:
	@tests/lab/install.sh

build: packages ## build target/release/fullgate and the library for IPVS's tools beside it
	$(CARGO) build --release $(LOCKED) --package fullgate --package ipvs-preload

demo: ## show a gateway at work in network namespaces (root; KEEP=1 leaves it up)
	@tests/lab/demo.sh

demo-end: ## end the lab that KEEP=1 left up (root)
	@tests/lab/demo.sh end

test: packages lint test-pure interleave instructions test-root ## everything that CI runs (root)

test-unit: packages ## unit tests and checks that need no root
	$(CARGO) test $(LOCKED) --lib --bins

test-pure:
	$(CARGO) test $(LOCKED) --no-default-features
	$(CARGO) test $(LOCKED) --package pages --features map
	$(CARGO) test $(LOCKED) --package ipvs-preload --package peer-credentials

# In a folder of its own: the flag is for every crate.
interleave: packages ## run what threads share in every order that the memory model allows
	RUSTFLAGS="--cfg interleave" $(CARGO) test $(LOCKED) --profile fuzz --target-dir target/interleave --no-default-features --lib interleaved

# FULLGATE_SOAK_MINUTES=10 has the test of keepalived with a gateway that is killed every 20 s go on for so long.
test-root:
	@[[ $$EUID == 0 ]] || { echo "make test: network namespaces need root: sudo make test" >&2; exit 1; }
	RUST_TEST_THREADS=$(LAB_THREADS) $(CARGO) test $(LOCKED)
	tests/hugepage-setup.sh

instructions: packages ## compare instructions per packet with perf/instructions/baseline.json (UPDATE=1 writes it)
	perf/instructions/check $(if $(UPDATE),--update)

fuzz: packages ## fuzz a target under libFuzzer: TARGET=parse|process|config|control|ipvs|tool, DURATION=seconds, MINIMISE=1 renews its corpus
	tests/fuzz/run $(if $(MINIMISE),--minimise $(TARGET),$(TARGET) $(DURATION))

bench: packages ## criterion benches of the pure core (BENCH="--bench session -- lookup": some; FULLGATE_BENCH_LARGE=1: 16M sessions too)
	$(CARGO) bench $(LOCKED) --no-default-features $(BENCH)

lint: packages ## formats, clippy, rustdoc and shellcheck, each warning an error
	$(CARGO) fmt --all --check
	$(CARGO) clippy $(LOCKED) --workspace --all-targets -- -D warnings
	$(CARGO) clippy $(LOCKED) --all-targets --no-default-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(LOCKED) --no-deps --document-private-items
	shellcheck $(SCRIPTS)

fmt: ## format the sources
	$(CARGO) fmt --all

perf: build ## measure beside testpmd; the report goes to perf/results/ (root; PERF="--rounds 3" and the like)
	$(CARGO) build --release $(LOCKED) -p fullgate-latency
	perf/run --all $(PERF)

install: ## install the built binary, man pages, completions, units, configurations (PREFIX, DESTDIR)
	@[[ -x target/release/fullgate ]] || { echo "make install: build first: make build" >&2; exit 1; }
	install -D -m 755 target/release/fullgate $(DESTDIR)$(PREFIX)/bin/fullgate
	install -D -m 644 target/release/libfullgate_ipvs.so $(DESTDIR)$(PREFIX)/lib/fullgate/libfullgate_ipvs.so
	install -D -m 755 hugepage-setup/fullgate-hugepages $(DESTDIR)$(PREFIX)/bin/fullgate-hugepages
	install -d $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(SYSCONF)/examples $(DESTDIR)$(UNITS)
	target/release/fullgate man $(DESTDIR)$(PREFIX)/share/man/man1
	for shell in bash:share/bash-completion/completions/fullgate zsh:share/zsh/site-functions/_fullgate fish:share/fish/vendor_completions.d/fullgate.fish; do \
		install -d "$$(dirname "$(DESTDIR)$(PREFIX)/$${shell#*:}")"; \
		target/release/fullgate completion "$${shell%%:*}" >"$(DESTDIR)$(PREFIX)/$${shell#*:}"; \
	done
	install -m 644 dpdk-config/* $(DESTDIR)$(SYSCONF)/examples/
	install -m 644 hugepage-setup/hugepages.conf $(DESTDIR)$(SYSCONF)/examples/
	for unit in fullgate fullgate-hugepages; do \
		sed 's|/usr/bin/fullgate|$(PREFIX)/bin/fullgate|' hugepage-setup/$$unit.service >$(DESTDIR)$(UNITS)/$$unit.service; \
	done
	for unit in keepalived ldirectord; do \
		install -d $(DESTDIR)$(SYSCONF)/examples/$$unit.service.d; \
		sed 's|/usr/lib/fullgate|$(PREFIX)/lib/fullgate|' hugepage-setup/$$unit.service.d/fullgate.conf >$(DESTDIR)$(SYSCONF)/examples/$$unit.service.d/fullgate.conf; \
	done
	@echo "next: $(SYSCONF)/fullgate.toml and $(SYSCONF)/hugepages.conf after the examples beside them, then systemctl daemon-reload and systemctl enable --now fullgate"

uninstall: ## remove what install put there, but for the configuration
	rm -f $(DESTDIR)$(PREFIX)/bin/fullgate $(DESTDIR)$(PREFIX)/bin/fullgate-hugepages $(DESTDIR)$(PREFIX)/share/man/man1/fullgate*.1
	rm -f $(DESTDIR)$(PREFIX)/share/bash-completion/completions/fullgate $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_fullgate $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/fullgate.fish
	rm -rf $(DESTDIR)$(PREFIX)/lib/fullgate
	rm -f $(DESTDIR)$(UNITS)/fullgate.service $(DESTDIR)$(UNITS)/fullgate-hugepages.service
