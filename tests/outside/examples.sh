#!/usr/bin/env bash
# Runs every program of docs/examples against a gateway and a simulated vendor, and looks at what they print.
# Usage: tests/outside/examples.sh [BINARY]; takes about a minute. What it installs (tsx, typescript) goes into target/.
set -euo pipefail
cd "$(dirname "$0")/../.."
binary=${1:-target/debug/rtm-gateway}
[ $# -gt 0 ] || cargo build --locked --quiet --bin rtm-gateway

node=target/outside/examples
if ! [ -x "$node/node_modules/.bin/tsx" ]; then
  mkdir -p "$node"
  npm --prefix "$node" install --silent --no-fund --no-audit tsx@4.20.6 typescript@5.9.3 @types/node@20.19.25
fi

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
folder=$(mktemp -d)
# shellcheck source=tests/outside/stage.sh
. tests/outside/stage.sh
children=()
end() {
  [ ${#children[@]} -eq 0 ] || kill "${children[@]}" 2>/dev/null || true
  stage_down
  rm -rf "$folder"
}
trap end EXIT

WEBHOOK_SECRET="whsec_$(head -c 32 /dev/urandom | base64 -w0)"
export WEBHOOK_SECRET
printf %s "$WEBHOOK_SECRET" >"$folder/webhook"
port_py=$(free_port)
port_ts=$(free_port)
webhook() {
  printf '[[apps.webhooks]]\nname = "%s"\nurl = "http://127.0.0.1:%s/hook"\nstreams = ["user_events"]\n' "$1" "$2"
  printf 'secrets = [{ file = "%s/webhook" }]\nallow_private_targets = true\n' "$folder"
  printf 'retry = { initial = "1s", max = "1s" }\n'
}
STAGE_APP="$(webhook py "$port_py")
$(webhook ts "$port_ts")"

# run NAME PATTERN COMMAND…: runs it for at most a minute; its output must hold the pattern.
run() {
  local name=$1 pattern=$2
  shift 2
  if ! timeout 60 "$@" >"$folder/out" 2>"$folder/err" || ! grep -Eq -- "$pattern" "$folder/out"; then
    echo "FAILED: $name: no /$pattern/ in its output, or it did not end well" >&2
    cat "$folder/out" "$folder/err" >&2
    tail -n 5 "$folder/gateway.log" >&2
    exit 1
  fi
  echo "ok: $name"
}

"$node/node_modules/.bin/tsc" --noEmit --strict --skipLibCheck --target es2022 --module nodenext \
  --types node --typeRoots "$node/node_modules/@types" docs/examples/*/*.ts
echo "ok: TypeScript's types"
stage_up "$binary" "$folder"
export KEY=crm-key ADMIN_KEY=admin-key APP=demo-app

python3 docs/examples/webhooks/receive.py "$port_py" 3 >"$folder/hook.py.out" 2>&1 &
hook_py=$!
"$node/node_modules/.bin/tsx" "docs/examples/webhooks/receive.ts" "$port_ts" 3 >"$folder/hook.ts.out" 2>&1 &
hook_ts=$!
children+=("$hook_py" "$hook_ts")

run events/poll.sh '"type":"Log(in|out)".*"next":"' docs/examples/events/poll.sh
run events/poll.py 'Log(in|out) web' python3 docs/examples/events/poll.py 3
# A stream has no end: curl's own time limit ends it, with status 28.
run events/stream.sh '^event: (Login|Logout|Join|Leave)' sh -c 'SECONDS_LONG=3 docs/examples/events/stream.sh || [ $? -eq 28 ]'
run events/stream.py "Log(in|out) \{" python3 docs/examples/events/stream.py 3
run events/stream.ts 'Log(in|out) \{' "$node/node_modules/.bin/tsx" "docs/examples/events/stream.ts" 3
if command -v jq >/dev/null; then
  run events/work.sh '"attempt":1' docs/examples/events/work.sh
else
  echo "NOT CHECKED: events/work.sh needs jq"
fi
run events/work.py 'attempt 1: Log' python3 docs/examples/events/work.py 2
run events/work.ts 'attempt 1: Log' "$node/node_modules/.bin/tsx" "docs/examples/events/work.ts" 2
# 120 messages of ours and one of the simulated vendor's own.
run history/query.sh '"payload":"message 120"' docs/examples/history/query.sh
run history/query.py 'alice message 1$' python3 docs/examples/history/query.py lobby
run history/export.sh '"end":true,"messages":121' docs/examples/history/export.sh "$folder/messages.ndjson"
run history/export.py '"payload": "message 120"' python3 docs/examples/history/export.py lobby
run history/export.ts '^121 messages$' "$node/node_modules/.bin/tsx" "docs/examples/history/export.ts" lobby
for hook in py ts; do
  pid=hook_$hook
  for _ in $(seq 300); do kill -0 "${!pid}" 2>/dev/null && sleep 0.1 || break; done
  run "webhooks/receive.$hook" 'Log(in|out) web' cat "$folder/hook.$hook.out"
done
run webhooks/operate.sh '"webhooks":' docs/examples/webhooks/operate.sh py
