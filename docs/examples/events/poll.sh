#!/bin/sh
# Reads the next events of the subscription `crm`, waiting up to 20 seconds for a first one, and prints them.
# What was handed over is not given to this subscription again; `from` says where it starts when it is new.
set -eu
curl -sSf -H "X-API-Key: ${KEY:-demo-crm}" \
  "${GATEWAY:-http://127.0.0.1:8080}/v1/apps/${APP:-demo-app}/events/user_events?subscription=crm&from=earliest&limit=100&wait=20s"
echo
