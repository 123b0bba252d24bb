#!/usr/bin/env bash
# A gateway whose places are all taken by strangers, at both of its ports, and 1,000 new ones a second: how long known
# callers, a Unix socket's and probes wait meanwhile. Not part of the gate (`tests/it/hostile/strangers.rs` is).
#
#   tests/outside/strangers.sh [BINARY [PLACES [SECONDS]]]
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/outside/stage.sh
binary=${1:-target/debug/rtm-gateway} places=${2:-1000} seconds=${3:-20}
[ -x "$binary" ] || cargo build --locked --bin rtm-gateway
ulimit -n "$(ulimit -Hn)"
folder=$(mktemp -d)
trap 'stage_down; rm -rf "$folder"' EXIT
STAGE_LISTEN=", \"unix:$folder/gateway.sock\"" STAGE_SERVER="max_connections = $places" stage_up "$binary" "$folder"
python3 tests/outside/strangers.py "$GATEWAY" "$OPERATOR" "$folder/gateway.sock" "$places" "$seconds"
curl -s --max-time 5 "$OPERATOR/metrics" | grep -E "^rtm_gateway_connections(_evicted_total.*)? " || true
