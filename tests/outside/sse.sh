#!/usr/bin/env bash
# Other people's Server-Sent Events clients against a running gateway that is stopped and started under them: each gets each
# event once, in order. Installs what it needs into target/outside.
#
#   tests/outside/sse.sh [BINARY]             httpx-sse and sseclient-py (PyPI); eventsource (npm) where node is
#   tests/outside/sse.sh [BINARY] --browser   Chromium's own EventSource too (apt-get install chromium)
set -euo pipefail
cd "$(dirname "$0")/../.."
binary=target/debug/rtm-gateway
if [ $# -gt 0 ] && [ "${1#--}" = "$1" ]; then
  binary=$1
  shift
fi
[ -x "$binary" ] || cargo build --locked --bin rtm-gateway

env=target/outside
packages=(httpx==0.28.1 httpx-sse==0.4.3 sseclient-py==1.9.0 requests==2.34.2)
[ "${1:-}" = --browser ] && packages+=(playwright==1.65.2)
if [ ! -x "$env/venv/bin/python" ]; then
  mkdir -p "$env" && python3 -m venv "$env/venv"
fi
"$env/venv/bin/pip" install --quiet --disable-pip-version-check "${packages[@]}"
if command -v npm >/dev/null && [ ! -d "$env/node_modules/eventsource" ]; then
  npm install --silent --no-fund --no-audit --prefix "$env" eventsource@4.1.1
fi
exec "$env/venv/bin/python" tests/outside/sse.py "$binary" "$env" "$@"
