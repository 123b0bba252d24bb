"""The messages of a channel in the last days, newest first, in one request. Usage: query.py [CHANNEL]"""

import json
import os
import sys
import time
import urllib.request

GATEWAY = os.environ.get("GATEWAY", "http://127.0.0.1:8080")
APP = os.environ.get("APP", "demo-app")
KEY = os.environ.get("KEY", "demo-crm")


def messages(channel, limit):
    now = int(time.time())
    wanted = {"destination": channel, "start_time": now - 7 * 24 * 3600, "end_time": now + 60}
    request = urllib.request.Request(
        f"{GATEWAY}/dev/v2/project/{APP}/rtm/message/history/query",
        json.dumps({"filter": wanted, "limit": limit, "order": "desc"}).encode(),
        {"X-API-Key": KEY, "Content-Type": "application/json", "Prefer": "wait=20"},
    )
    with urllib.request.urlopen(request, timeout=40) as answer:
        return json.load(answer)["messages"]


for message in messages(sys.argv[1] if len(sys.argv) > 1 else "lobby", 200):
    print(message["ms"], message["src"], message["payload"])
