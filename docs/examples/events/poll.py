"""Reads events for ever (or until COUNT of them), a batch at a time. The gateway keeps the place of the subscription.

Usage: poll.py [COUNT]
"""

import json
import os
import sys
import urllib.parse
import urllib.request

GATEWAY = os.environ.get("GATEWAY", "http://127.0.0.1:8080")
APP = os.environ.get("APP", "demo-app")
KEY = os.environ.get("KEY", "demo-crm")


def events():
    query = urllib.parse.urlencode({"subscription": "crm-poll", "limit": 100, "wait": "20s"})
    url = f"{GATEWAY}/v1/apps/{APP}/events/user_events?{query}"
    while True:
        request = urllib.request.Request(url, headers={"X-API-Key": KEY})
        with urllib.request.urlopen(request, timeout=40) as answer:
            yield from json.load(answer)["events"]


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else None
    for number, event in enumerate(events(), 1):
        if event["type"] == "possible_loss":
            print("events may have been lost here:", event["reason"])
        else:
            print(event["received_at"], event["type"], event["user_id"], event["event"])
        if number == count:
            return


main()
