#!/usr/bin/env bash
# Other people's HTTP tools against a running gateway: does it serve what is right, and outlast what is slow?
# Not part of the gate: the tools come from the distribution (apt-get install nghttp2-client slowhttptest; pip install
# redbot), and slow attacks take their time (about two minutes together). Usage: tests/outside/checkers.sh [BINARY]
set -euo pipefail
binary=${1:-target/release/rtm-gateway}
port=${PORT:-18080}
"$binary" demo --port "$port" --admin-port $((port + 1)) >/tmp/checkers.log 2>&1 &
demo=$!
trap 'kill $demo 2>/dev/null || true' EXIT
until curl -sf "http://127.0.0.1:$((port + 1))/readyz" >/dev/null; do sleep 0.2; done

url="http://127.0.0.1:$port/dev/v2/project/demo-app/rtm/message/history/count?destination=lobby&start_time=1&end_time=4000000000"
key='X-API-Key: demo-crm'
resident() { awk '/VmRSS/ {print $2 " KiB"}' "/proc/$demo/status"; }
is_served() { curl -s -o /dev/null -w '%{http_code} in %{time_total} s' -H "$key" "$url"; }

echo "== resident before: $(resident)"
echo "== nghttp: HTTP/2 with prior knowledge, and by upgrade (which is passed over: served as HTTP/1.1)"
nghttp -ns -H "$key" "$url" | tail -n 3
curl -s -o /dev/null -w 'curl --http2-prior-knowledge: %{http_version} %{http_code}\n' --http2-prior-knowledge -H "$key" "$url"
curl -s -o /dev/null -w 'curl --http2 (h2c upgrade): %{http_version} %{http_code}\n' --http2 -H "$key" "$url"
echo "== h2load: 20,000 requests, HTTP/2 with 100 streams each, then HTTP/1.1"
h2load -n 20000 -c 20 -m 100 -H "$key" "http://127.0.0.1:$port/nothing" | grep -E 'finished|requests:|status codes'
h2load -n 20000 -c 20 --h1 -H "$key" "http://127.0.0.1:$port/nothing" | grep -E 'finished|requests:|status codes'
if command -v redbot >/dev/null; then
  echo "== redbot"
  redbot -o text "http://127.0.0.1:$port/nothing" | head -n 40
fi
for mode in "-H -i 5" "-B -i 5 -s 8192" "-X -w 1 -y 2 -n 5 -z 1 -k 10" "-R"; do
  echo "== slowhttptest $mode: 500 connections for 25 seconds"
  slowhttptest -c 500 $mode -r 200 -p 3 -l 25 -u "$url" 2>&1 | sed 's/\x1b\[[0-9;]*m//g' |
    grep -aE 'service available|Test ended|Exit status' | tail -n 3 || true
  echo "   served meanwhile and after: $(is_served); resident: $(resident)"
done
