#!/usr/bin/env bash
# Webhooks as others' libraries see them: a gateway pushes to a receiver that is built with the public Standard Webhooks and
# CloudEvents libraries (Python; and JavaScript where there is a node). One command, fit for CI; all it installs is in target/.
set -euo pipefail
cd "$(dirname "$0")/../.."

gateway=${1:-target/debug/rtm-gateway}
[ $# -gt 0 ] || cargo build --locked --quiet --bin rtm-gateway

place=target/outside/webhooks
mkdir -p "$place"
if [ ! -x "$place/venv/bin/python" ]; then
  python3 -m venv "$place/venv"
fi
"$place/venv/bin/pip" --disable-pip-version-check --quiet install \
  standardwebhooks==1.1.0 cloudevents==2.2.0 cryptography==50.0.2

"$place/venv/bin/python" tests/outside/webhooks.py "$gateway" "$place/seen.json"

if command -v node >/dev/null && command -v npm >/dev/null; then
  npm --prefix "$place" --silent --no-fund --no-audit install standardwebhooks@1.1.1 cloudevents@10.0.0
  cp tests/outside/webhooks.mjs "$place/webhooks.mjs"
  node "$place/webhooks.mjs" "$place/seen.json"
else
  echo "NOT CHECKED by the JavaScript libraries: there is no node here."
fi
