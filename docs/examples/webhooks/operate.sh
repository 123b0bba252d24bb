#!/bin/sh
# How the webhooks stand; holds the webhook NAME back for a moment, lets it go on, and lists what it did not take.
# Usage: operate.sh NAME
set -eu
operator=${OPERATOR:-http://127.0.0.1:9090}
name=${1:?usage: operate.sh NAME}
ask() { curl -sSf ${ADMIN_KEY:+-H "Authorization: Bearer $ADMIN_KEY"} "$@" && echo; }
ask "$operator/admin/v1/webhooks"
ask -X POST "$operator/admin/v1/apps/${APP:-demo-app}/webhooks/$name/disable"
ask -X POST "$operator/admin/v1/apps/${APP:-demo-app}/webhooks/$name/enable"
ask "$operator/admin/v1/apps/${APP:-demo-app}/webhooks/$name/dead-letters"
