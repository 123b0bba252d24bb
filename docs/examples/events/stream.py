"""Prints events as they come (Server-Sent Events), for ever or until COUNT of them. A connection that breaks is made
again, and the stream goes on after the last event that came.

Usage: stream.py [COUNT]
"""

import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.request

GATEWAY = os.environ.get("GATEWAY", "http://127.0.0.1:8080")
APP = os.environ.get("APP", "demo-app")
KEY = os.environ.get("KEY", "demo-crm")


def parsed(lines):
    """The events of a text/event-stream: field by field, a blank line ends an event, a colon begins a comment."""
    event = {}
    for line in lines:
        line = line.decode().rstrip("\r\n")
        if not line:
            if "data" in event:
                yield event
            event = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            event[name] = f"{event['data']}\n{value}" if name == "data" and "data" in event else value


def events(last=None):
    url = f"{GATEWAY}/v1/apps/{APP}/events/user_events?subscription=crm-stream"
    while True:
        headers = {"X-API-Key": KEY, "Accept": "text/event-stream"}
        if last:
            headers["Last-Event-ID"] = last
        try:
            # A comment comes each 15 seconds: silence means that nobody is there.
            with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=45) as answer:
                for event in parsed(answer):
                    last = event.get("id", last)
                    yield event
        except urllib.error.HTTPError as refused:
            if refused.code not in (429, 503):
                raise
        except (OSError, http.client.HTTPException) as broken:
            print("again:", broken, file=sys.stderr)
        time.sleep(2)


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else None
    for number, event in enumerate(events(), 1):
        print(event["id"], event.get("event"), json.loads(event["data"]))
        if number == count:
            return


main()
