#!/usr/bin/env bash
# schemathesis (a property-based API tester) against both ports of a running gateway, by the OpenAPI document: no answer
# of ours may be a fault of ours, undocumented, of another form than documented, or taken for valid when it is not.
# Usage: tests/outside/openapi.sh [BINARY]; takes about two minutes. The tool goes into target/.
set -euo pipefail
cd "$(dirname "$0")/../.."
binary=${1:-target/debug/rtm-gateway}
[ -x "$binary" ] || cargo build --locked --bin rtm-gateway

venv=target/outside-venv
if ! [ -x "$venv/bin/schemathesis" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check -r tests/outside/openapi/requirements.txt
fi

folder=$(mktemp -d)
# shellcheck source=tests/outside/stage.sh
. tests/outside/stage.sh
trap 'stage_down; rm -rf "$folder"' EXIT
stage_up "$binary" "$folder"

curl --silent --fail --output "$folder/openapi.json" "$GATEWAY/openapi.json"
"$venv/bin/openapi-spec-validator" "$folder/openapi.json"

export SCHEMATHESIS_HOOKS=hooks PYTHONPATH=tests/outside/openapi
test_port() {
  local name=$1 url=$2
  shift 2
  echo "== $name"
  "$venv/bin/schemathesis" --config-file tests/outside/openapi/schemathesis.toml run "$url/openapi.json" --url "$url" \
    --seed 1 --checks all "$@"
}
test_port "callers' port" "$GATEWAY" --exclude-tag admin
test_port "operators' port" "$OPERATOR" --include-tag admin
