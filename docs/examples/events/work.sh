#!/bin/sh
# Takes one event of the subscription `jobs` on a lease of 30 seconds, works on it, and acknowledges it as it asks for
# the next. Twice, or COUNT times; the last is acknowledged alone. Needs jq. Usage: work.sh [COUNT]
# What is not acknowledged in time is given to the next reader again.
set -eu
base="${GATEWAY:-http://127.0.0.1:8080}/v1/apps/${APP:-demo-app}/events/user_events"
post() { curl -sSf -H "X-API-Key: ${KEY:-demo-crm}" -H 'Content-Type: application/json' -d "$2" "$base/$1"; }
settle=null
for _ in $(seq "${1:-2}"); do
  batch=$(post next "{\"subscription\":\"jobs\",\"settle\":$settle,\"lease\":\"30s\",\"limit\":1,\"wait\":\"20s\"}")
  # A lease that was over is told; its event comes again.
  printf %s "$batch" | jq -c 'select(.settled.result == "failed") | .settled'
  settle=null
  lease=$(printf %s "$batch" | jq -r .lease)
  [ "$lease" != null ] || continue
  printf %s "$batch" | jq -c '.events[] | {attempt, event}'
  settle="{\"lease\":\"$lease\"}"
done
[ "$settle" = null ] || post ack "{\"subscription\":\"jobs\",\"lease\":\"$lease\"}"
echo
