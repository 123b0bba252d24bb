"""What a JSON Schema cannot say of our values: how to make those of our own formats, and rules between two members."""

import base64
import os
import zlib

import requests
import schemathesis
from hypothesis import strategies as st

GATEWAY = os.environ["GATEWAY"]


def cursor(epoch: int, at: int) -> str:
    """A place in a log, as src/events/log/cursor.rs writes it."""
    place = epoch.to_bytes(8, "big") + at.to_bytes(8, "big")
    check = zlib.crc32(b"cursor1" + place).to_bytes(4, "big")
    return base64.urlsafe_b64encode(place + check).decode().rstrip("=")


def epoch() -> int:
    """Of the gateway under test: a cursor of another store is refused as too old."""
    answer = requests.get(
        f"{GATEWAY}/v1/apps/demo-app/events/user_events?limit=1&subscription=epoch&wait=5s",
        headers={"X-API-Key": "all-key"},
        timeout=10,
    )
    text = answer.json()["next"]
    return int.from_bytes(base64.urlsafe_b64decode(text + "=")[:8], "big")


schemathesis.openapi.format("rtm-cursor", st.just(cursor(epoch(), 1)) | st.builds(cursor, st.integers(0, 2**64 - 1), st.just(0)))
schemathesis.openapi.format("rtm-dead-letters-cursor", st.just(cursor(epoch(), 1)))
schemathesis.openapi.format("rtm-history-cursor", st.nothing())
schemathesis.openapi.format("rtm-lease", st.integers(1, 43_200).map("{}s".format))
schemathesis.openapi.format("rtm-lease-name", st.just("A" * 22))
schemathesis.openapi.format("rtm-party", st.text("abcdefghijklmnopqrstuvwxyz0123456789_-", min_size=1, max_size=20))
TIMES = [
    "1564622530",
    "2019-08-01T01:22:10Z",
    "2019-08-01T09:22:10+08:00",
]
schemathesis.openapi.format("rtm-time", st.sampled_from(TIMES))


@schemathesis.hook
def before_call(context, case, kwargs):
    """Of what is to be valid, mends what only two members together make wrong."""
    if case.meta is None or case.meta.generation.mode.value != "positive":
        return
    query = case.query or {}
    # Nothing may match a filter: then a read waits as long as it says.
    if "wait" in query:
        query["wait"] = "1s"
    # A stream has no end, so none is opened here; what only a stream knows is refused.
    query.pop("last_event_id", None)
    query.pop("lastEventId", None)
    if (case.path_parameters or {}).get("stream") == "all":
        # Its cursors are pairs of places.
        query.pop("after", None)
        query["from"] = "latest"
    if case.path.endswith("/webhooks/{name}/dead-letters") and "after" in query:
        # A place is one in the streams that are named beside it.
        query["stream"] = "user_events"
    if "ack" not in query or query["ack"] != "explicit":
        query.pop("lease", None)
        query.pop("max_attempts", None)
    else:
        query.pop("after", None)
        case.path_parameters["stream"] = "user_events"
    if "from" in query and "after" in query:
        del query["after"]
    body = case.body if isinstance(case.body, dict) else {}
    if isinstance(body.get("wait"), (int, float, str)):
        body["wait"] = "1s"
    # To JSON Schema 7.0 is a whole number; here a number is as it is written.
    for member in ("limit", "max_attempts"):
        if isinstance(body.get(member), float):
            body[member] = int(body[member])
    if (case.path_parameters or {}).get("stream") == "channel_events" or case.path.endswith("/channel_events"):
        # The places that are made here are of the other stream.
        query.pop("after", None)
        for said in (query, body):
            if "from" in said:
                said["from"] = "latest"
    # 64 patterns in all.
    for said in (query, body):
        for member in ("type", "user_id", "group_id"):
            if isinstance(said.get(member), list):
                said[member] = said[member][:21]
    mend_filter(query if "{app}/history" in case.path or case.path.endswith("/count") else None)
    mend_filter(body.get("filter"))


def mend_filter(wanted) -> None:
    """A window that ends before it begins; nobody named."""
    if not isinstance(wanted, dict):
        return
    if "start_time" in wanted:
        wanted["end_time"] = wanted["start_time"]
    if not wanted.get("source") and not wanted.get("destination"):
        wanted["destination"] = "lobby"
