"""Works on events that are leased: several such programs share them, what one does not acknowledge another gets, and
events of one user are never worked on by two at a time. For ever, or until COUNT batches.

Usage: work.py [COUNT]
"""

import json
import os
import sys
import urllib.request

GATEWAY = os.environ.get("GATEWAY", "http://127.0.0.1:8080")
APP = os.environ.get("APP", "demo-app")
KEY = os.environ.get("KEY", "demo-crm")
EVENTS = f"{GATEWAY}/v1/apps/{APP}/events/user_events"


def ask(url, body):
    headers = {"X-API-Key": KEY, "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers), timeout=40) as answer:
        return json.load(answer)


def work(entry):
    print(f"attempt {entry['attempt']}:", entry["type"], entry.get("user_id"))


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else None
    number = 0
    read = {"subscription": "jobs-py", "lease": "30s", "limit": 20, "max_attempts": 5, "wait": "20s"}
    # What is done with: acknowledged with the next read, in one round trip.
    settle = None
    while number != count:
        batch = ask(f"{EVENTS}/next", {**read, "settle": settle})
        if batch.get("settled", {}).get("result") == "failed":
            print("too late, it comes again:", batch["settled"]["detail"], file=sys.stderr)
        settle = None
        if not batch["events"]:
            continue
        lease = {"lease": batch["lease"]}
        try:
            for entry in batch["events"]:
                work(entry)
        except Exception as why:  # Whatever it is, somebody should try again, in a while.
            print("not done:", why, file=sys.stderr)
            ask(f"{EVENTS}/nack", {"subscription": "jobs-py", **lease, "delay": "5s"})
        else:
            settle = lease
            number += 1
    if settle:
        ask(f"{EVENTS}/ack", {"subscription": "jobs-py", **settle})


main()
