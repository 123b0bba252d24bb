#!/bin/sh
# Takes one event of the subscription `jobs` on a lease of 30 seconds, works on it, and acknowledges it.
# Needs jq. What is not acknowledged in time is given to the next reader again.
set -eu
base="${GATEWAY:-http://127.0.0.1:8080}/v1/apps/${APP:-demo-app}/events/user_events"
key="X-API-Key: ${KEY:-demo-crm}"
batch=$(curl -sSf -H "$key" "$base?subscription=jobs&ack=explicit&lease=30s&limit=1&wait=20s")
lease=$(printf %s "$batch" | jq -r .lease)
[ "$lease" != null ] || exit 0
printf %s "$batch" | jq -c '.events[] | {attempt, event}'
curl -sSf -H "$key" -H 'Content-Type: application/json' -d "{\"subscription\":\"jobs\",\"lease\":\"$lease\"}" "$base/ack"
echo
