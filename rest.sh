#!/usr/bin/env bash
# The gate: what a change must pass. Runs on a clean checkout and installs what it needs.
set -euo pipefail
cd /tmp/gate
mkdir -p target

step() { printf '\n== %s\n' "$*"; }

export CARGO_TERM_COLOR=never
export CARGO_INCREMENTAL=0

# What the tests run beside the gateway (the README's curl lines, openssl for certs/make-dev-certs) and what C
# dependencies are built with.
missing=()
command -v curl >/dev/null 2>&1 || missing+=(curl)
command -v openssl >/dev/null 2>&1 || missing+=(openssl)
command -v cc >/dev/null 2>&1 || missing+=(gcc libc6-dev)
command -v c++ >/dev/null 2>&1 || missing+=(g++)
command -v make >/dev/null 2>&1 || missing+=(make)
if [ ${#missing[@]} -gt 0 ]; then
  step "install ${missing[*]}"
  apt-get update -qq && apt-get install -y -qq "${missing[@]}"
fi

if ! command -v cargo-deny >/dev/null 2>&1; then
  step "install cargo-deny"
  cargo install --locked --quiet --root target/tools cargo-deny@0.20.2
  PATH="$PWD/target/tools/bin:$PATH"
fi

step "format"
cargo fmt --check
step "test (the README's command)"
cargo test --locked

step "soak: two minutes of faults, restarts and reloads, then the ledger"
cargo bench --locked --profile dev --bench soak -- --for 2m

step "delivery: the library under chance held against the reference model, and each planted fault found"
cargo test --locked --lib --features judged judged::

step "delivery: a minute of the process under chance, every answer held against the reference model"
cargo bench --locked --profile dev --bench delivery_book -- --for 1m

# Others' tools, each with its own folder below target/. The distribution has what they need.
missing=()
python3 -c 'import venv, ensurepip' >/dev/null 2>&1 || missing+=(python3-venv)
command -v node >/dev/null 2>&1 || missing+=(nodejs)
command -v npm >/dev/null 2>&1 || missing+=(npm)
command -v jq >/dev/null 2>&1 || missing+=(jq)
if [ ${#missing[@]} -gt 0 ]; then
  step "install ${missing[*]}"
  apt-get update -qq && apt-get install -y -qq "${missing[@]}"
fi
cargo build --locked --bin rtm-gateway

step "outside tools: schemathesis, by the OpenAPI document, against both ports"
tests/outside/openapi.sh target/debug/rtm-gateway

step "outside tools: the examples of docs/ in curl, Python and TypeScript"
tests/outside/examples.sh target/debug/rtm-gateway

step "outside tools: webhooks received with the public Standard Webhooks and CloudEvents libraries"
tests/outside/webhooks.sh target/debug/rtm-gateway

step "outside tools: streams read with public clients of Server-Sent Events"
tests/outside/sse.sh target/debug/rtm-gateway

step "fuzz: every target for 50,000 executions, from what earlier runs found"
fuzz/run executions 50000

