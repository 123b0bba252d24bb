# What there is to do here, each alone: `just NAME`. `.ci/run` installs what these need and calls them in the order of `gate`.
# just: https://just.systems (`pip install rust-just`, or from the distribution).

export CARGO_TERM_COLOR := "never"

# What there is.
default:
  @just --list --unsorted

# The loop while writing: does it compile, without a complaint?
check:
  cargo clippy --locked --all-targets -- -D warnings

# The loop while writing: the library's tests, or those with this in their name.
test *filter:
  cargo test --locked --lib {{ filter }}

# All tests, as the README has it.
test-all:
  cargo test --locked

# The library's tests with eight times as many cases of each property and model.
models:
  PROPTEST_CASES=512 cargo test --locked --lib

# Formats what is written.
fmt:
  cargo fmt

# Is it formatted?
format:
  cargo fmt --check

# Licences, bans and sources of what we depend on.
deny:
  cargo deny --locked check licenses bans sources
  cargo deny --locked --config deny.toml --manifest-path fuzz/Cargo.toml check licenses bans sources

# Known vulnerabilities. The database is fetched; a machine without a way out cannot ask it, and says so.
advisories:
  #!/usr/bin/env bash
  set -euo pipefail
  mkdir -p target
  if cargo deny --locked fetch db >target/deny-fetch.log 2>&1; then
    cargo deny --locked check advisories
    cargo deny --locked --config deny.toml --manifest-path fuzz/Cargo.toml check advisories
  else
    echo "NOT CHECKED: the advisory database cannot be reached from here. Nothing is said about known vulnerabilities."
  fi

# The documentation of the code, as a whole and without a broken link.
doc:
  RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items

# Faults, restarts and reloads of the process, then the ledger.
soak time="2m":
  cargo bench --locked --profile dev --bench soak -- --for {{ time }}

# Delivery under chance held against the reference model: the library, with each planted fault found.
judged:
  cargo test --locked --lib --features judged judged::

# The same of the process, every answer.
delivery-book time="1m":
  cargo bench --locked --profile dev --bench delivery_book -- --for {{ time }}

# What a message, a shared count, a streamed event and a seat cost in instructions, against the kept figures.
guard *args:
  CARGO_INCREMENTAL=0 cargo build --locked --profile guard -p rtm-gateway --bin rtm-gateway -p instruction-guard --bin instruction-guard
  "${CARGO_TARGET_DIR:-target}/guard/instruction-guard" {{ args }}

# Every fuzz target for so many executions, from what earlier runs found.
fuzz executions="50000":
  fuzz/run executions {{ executions }}

# Others' tools against the built gateway: by the OpenAPI document, by the examples, by public client libraries.
outside:
  cargo build --locked --bin rtm-gateway
  tests/outside/config.sh target/debug/rtm-gateway
  tests/outside/openapi.sh target/debug/rtm-gateway
  tests/outside/examples.sh target/debug/rtm-gateway
  tests/outside/webhooks.sh target/debug/rtm-gateway
  tests/outside/sse.sh target/debug/rtm-gateway

# All that a change must pass, as in CI: about half an hour on two cores.
gate: format deny advisories check doc guard test-all models soak judged delivery-book fuzz outside
