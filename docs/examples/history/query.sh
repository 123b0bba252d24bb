#!/bin/sh
# The messages of the channel `lobby`, up to 200 of them, in one request.
set -eu
curl -sSf -H "X-API-Key: ${KEY:-demo-crm}" -H 'Content-Type: application/json' \
  -d '{"filter":{"destination":"lobby","start_time":1,"end_time":4000000000},"limit":200,"order":"asc"}' \
  "${GATEWAY:-http://127.0.0.1:8080}/dev/v2/project/${APP:-demo-app}/rtm/message/history/query"
echo
