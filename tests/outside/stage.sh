# To be sourced: a simulated vendor and a gateway on free ports of 127.0.0.1.
#
#   stage_up BINARY FOLDER    sets GATEWAY, OPERATOR and VENDOR to their base URLs
#   stage_down                ends both
#
# STAGE_APP may hold further lines of the app's configuration, STAGE_SERVER of [server], STAGE_LISTEN more addresses
# (`, "unix:/a/path"`).
#
# The app is demo-app. The clients `all`, `crm` and `audit` may do everything, with the keys `all-key` and so on; the
# operators' key is `admin-key`. A little history is there, and two events of each stream occur every second.

sha256() { printf %s "$1" | sha256sum | cut -d' ' -f1; }

stage_client() {
  printf '[[clients]]\nname = "%s"\napi_key_sha256 = "%s"\n' "$1" "$(sha256 "$1-key")"
  printf 'allow = [{ app = "*", actions = ["events", "history", "count", "messages"] }]\n'
}

# Waits for a line of a log that says where it listens, and prints the address.
stage_address() {
  local log=$1 pattern=$2 address
  for _ in $(seq 200); do
    address=$(sed -n "s/.*$pattern.*/\1/p" "$log" | head -n 1)
    if [ -n "$address" ]; then
      echo "$address"
      return
    fi
    sleep 0.1
  done
  cat "$log" >&2
  return 1
}

stage_up() {
  local binary=$1 folder=$2
  cat >"$folder/vendor.toml" <<VENDOR
[[apps]]
id = "demo-app"
basic = [{ api_key = "vendor-key", api_secret = "vendor-secret" }]
events_per_second = 2.0
[apps.limits]
user_events = { requests = 1000, per = "1s" }
channel_events = { requests = 1000, per = "1s" }
history_create = { requests = 1000, per = "1s" }
history_get = { requests = 1000, per = "1s" }
history_count = { requests = 1000, per = "1s" }
messages = { requests = 1000, per = "1s" }
VENDOR
  "$binary" simulate --listen 127.0.0.1:0 --config "$folder/vendor.toml" >"$folder/vendor.log" 2>&1 &
  STAGE_VENDOR=$!
  VENDOR=$(stage_address "$folder/vendor.log" '\(http:\/\/127\.0\.0\.1:[0-9]*\)')
  printf vendor-key >"$folder/key"
  printf vendor-secret >"$folder/secret"
  {
    cat <<GATEWAY
[server]
listen = ["127.0.0.1:0"${STAGE_LISTEN:-}]
${STAGE_SERVER:-}
[admin]
listen = "127.0.0.1:0"
api_key_sha256 = "$(sha256 admin-key)"
[store]
path = "$folder/data"
[[apps]]
id = "demo-app"
regions = [{ name = "here", base_url = "$VENDOR" }]
[apps.credential]
kind = "basic"
api_key = { file = "$folder/key" }
api_secret = { file = "$folder/secret" }
[apps.quota]
user_events = { requests = 10, per = "1s" }
channel_events = { requests = 10, per = "1s" }
history_create = { requests = 1000, per = "1s" }
history_get = { requests = 1000, per = "1s" }
history_count = { requests = 1000, per = "1s" }
messages = { requests = 1000, per = "1s" }
[apps.history]
deadline = "5s"
GATEWAY
    [ -z "${STAGE_APP:-}" ] || printf '%s\n' "$STAGE_APP"
    stage_client all
    stage_client crm
    stage_client audit
  } >"$folder/gateway.toml"
  "$binary" serve --config "$folder/gateway.toml" >"$folder/gateway.log" 2>&1 &
  STAGE_GATEWAY=$!
  GATEWAY=http://$(stage_address "$folder/gateway.log" 'listening for callers.*"address":"\([^"]*\)"')
  OPERATOR=http://$(stage_address "$folder/gateway.log" 'listening for operators.*"address":"\([^"]*\)"')
  export GATEWAY OPERATOR VENDOR
  local messages='' n
  for n in $(seq 1 120); do
    messages+="${messages:+,}{\"src\":\"alice\",\"dst\":\"lobby\",\"message_type\":\"channel_message\",\"payload\":\"message $n\"}"
  done
  curl -sf -o /dev/null -d "[$messages]" "$VENDOR/_sim/apps/demo-app/messages"
  until curl -sf -o /dev/null "$OPERATOR/readyz"; do sleep 0.1; done
}

stage_down() {
  for child in "${STAGE_GATEWAY:-}" "${STAGE_VENDOR:-}"; do
    [ -z "$child" ] || kill "$child" 2>/dev/null || true
  done
  wait 2>/dev/null || true
}
