#!/bin/sh
# All messages of the channel `lobby`, a line each, into FILE (default messages.ndjson); fails when it was cut short.
set -eu
file=${1:-messages.ndjson}
curl -sSf -H "X-API-Key: ${KEY:-demo-crm}" -H 'Accept: application/x-ndjson' -o "$file" \
  "${GATEWAY:-http://127.0.0.1:8080}/v1/apps/${APP:-demo-app}/history?destination=lobby&start_time=1&end_time=4000000000"
tail -n 1 "$file" | grep '"end":true'
