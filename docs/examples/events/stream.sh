#!/bin/sh
# Prints events as they come (Server-Sent Events), without a subscription: from now on, or after LAST_EVENT_ID.
# SECONDS_LONG ends it; without, Ctrl-C does.
set -eu
curl -sSN -H "X-API-Key: ${KEY:-demo-crm}" -H 'Accept: text/event-stream' \
  ${LAST_EVENT_ID:+-H "Last-Event-ID: $LAST_EVENT_ID"} ${SECONDS_LONG:+--max-time "$SECONDS_LONG"} \
  "${GATEWAY:-http://127.0.0.1:8080}/v1/apps/${APP:-demo-app}/events/all?subscription=crm-watch&from=latest"
