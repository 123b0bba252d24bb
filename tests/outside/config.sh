#!/usr/bin/env bash
# The JSON Schema of the configuration, as `rtm-gateway config --as json-schema` prints it, held against python's jsonschema: the
# documented file and the deployments' pass, and what `check` refuses for its form does not.
# Usage: tests/outside/config.sh [BINARY]. The tool goes into target/.
set -euo pipefail
cd "$(dirname "$0")/../.."
binary=${1:-target/debug/rtm-gateway}
[ -x "$binary" ] || cargo build --locked --bin rtm-gateway

venv=target/outside-config-venv
if ! [ -x "$venv/bin/python" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check jsonschema==4.25.1
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$binary" config --as json-schema >"$folder/schema.json"
cmp "$folder/schema.json" config/gateway.schema.json
"$binary" config | cmp - config/gateway.toml
"$venv/bin/python" tests/outside/config.py "$binary" "$folder/schema.json"
