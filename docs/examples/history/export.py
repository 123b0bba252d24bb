"""All messages of a channel as lines on the standard output, of any number. What breaks on the way is gone on with from
the last cursor, so that each message is printed once. Usage: export.py [CHANNEL]
"""

import http.client
import json
import os
import sys
import time
import urllib.parse
import urllib.request

GATEWAY = os.environ.get("GATEWAY", "http://127.0.0.1:8080")
APP = os.environ.get("APP", "demo-app")
KEY = os.environ.get("KEY", "demo-crm")


def parts(query):
    """Yields messages, up to a cursor each time: what came after the last cursor of a broken stream comes again."""
    while True:
        url = f"{GATEWAY}/v1/apps/{APP}/history?{urllib.parse.urlencode(query)}"
        request = urllib.request.Request(url, headers={"X-API-Key": KEY, "Accept": "application/x-ndjson"})
        waiting = []
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                for line in answer:
                    value = json.loads(line)
                    if "ms" in value or "ts" in value:
                        waiting.append(value)
                        continue
                    # Whatever the line says beside, its cursor stands for all messages above it.
                    query["cursor"] = value["cursor"]
                    yield waiting
                    waiting = []
                    if value.get("end"):
                        return
                    if "error" in value:
                        print("broken:", value["error"]["detail"], file=sys.stderr)
                        break
        except (OSError, ValueError, http.client.HTTPException) as why:
            if isinstance(why, urllib.error.HTTPError) and why.code < 500 and why.code != 429:
                raise
            print("broken:", why, file=sys.stderr)
        time.sleep(2)


channel = sys.argv[1] if len(sys.argv) > 1 else "lobby"
for messages in parts({"destination": channel, "start_time": 1, "end_time": 4_000_000_000}):
    for message in messages:
        print(json.dumps(message, ensure_ascii=False))
