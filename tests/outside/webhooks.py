"""A gateway pushes events in every format to a receiver that knows them by the public libraries alone.

Usage: webhooks.py GATEWAY-BINARY FILE-FOR-WHAT-CAME
"""

import base64
import collections
import http.server
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from cloudevents.core.formats.json import JSONFormat
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

SYMMETRIC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ASYMMETRIC = "whsk_VEVTVFNJR05JTkdLRVlET05PVFVTRVRISVNGT1JBTlk="
EVENTS = [
    '{"ms":1476095418189,"type":"Login","user_id":"plain"}',
    '{ "ms" : 1476095418190 , "type":"Logout","user_id":"w\\u0065b \\"9%\\"","new":[1,{"a":null}] }',
    '{"ms":1476095418191,"type":"Login","user_id":"用户 🙂"}',
    '{"user_id":"no type, no time"}',
    '{"type":"Login","ms":1476095418192,"user_id":"line\\nbreak"}',
]
FORMATS = ["structured", "binary", "batch"]
FAILED_FIRST = {"structured", "binary", "batch"}  # the first request of each is refused once


class Receiver(http.server.ThreadingHTTPServer):
    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen, self.lock = [], threading.Lock()
        self.refuse = set(FAILED_FIRST)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        kind = self.path.strip("/")
        with self.server.lock:
            refused = kind in self.server.refuse
            self.server.refuse.discard(kind)
            self.server.seen.append((kind, dict(self.headers.items()), body, refused))
        self.send_response(500 if refused else 204)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def lines_of(process, stream, found):
    for line in stream:
        found(line)


def start(command, stream, wanted):
    """Starts a process, and waits for what `wanted` finds in its output."""
    process = subprocess.Popen(command, text=True, **{stream: subprocess.PIPE})
    found, done = [], threading.Event()

    def look(line):
        result = wanted(line)
        if result is not None:
            found.append(result)
            done.set()

    threading.Thread(target=lines_of, args=(process, getattr(process, stream), look), daemon=True).start()
    if not done.wait(20):
        process.kill()
        sys.exit(f"{command[1]} did not start")
    return process, found[0]


def free_port():
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def configuration(folder, vendor, receiver):
    hooks = "".join(
        f"""
[[apps.webhooks]]
name = "{kind}"
url = "http://127.0.0.1:{receiver}/{kind}"
streams = ["user_events"]
secrets = [{{ file = "{folder}/symmetric" }}, {{ file = "{folder}/asymmetric" }}]
format = "{kind}"
retry = {{ initial = "50ms", max = "1s" }}
allow_private_targets = true
"""
        for kind in FORMATS
    )
    return f"""
[server]
listen = ["127.0.0.1:0"]
[admin]
listen = "127.0.0.1:0"
[store]
path = "{folder}/data"
[[apps]]
id = "demo-app"
regions = [{{ name = "here", base_url = "http://{vendor}" }}]
[apps.credential]
kind = "basic"
api_key = {{ file = "{folder}/key" }}
api_secret = {{ file = "{folder}/secret" }}
{hooks}"""


def verified_asymmetric(headers, body):
    seed = base64.b64decode(ASYMMETRIC.removeprefix("whsk_"))
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    public: Ed25519PublicKey = Ed25519PrivateKey.from_private_bytes(seed).public_key()
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    version, signature = headers["webhook-signature"].split(" ")[1].split(",")
    assert version == "v1a", version
    public.verify(base64.b64decode(signature), signed)  # raises when it is not good


def events_of(kind, headers, body):
    """By the CloudEvents library."""
    if kind == "batch":
        assert headers["content-type"] == "application/cloudevents-batch+json"
        one = {**headers, "content-type": "application/cloudevents+json"}
        return [from_http_event(HTTPMessage(one, json.dumps(e).encode()), JSONFormat()) for e in json.loads(body)]
    return [from_http_event(HTTPMessage(headers, body), JSONFormat())]


def check(seen):
    by_kind = collections.defaultdict(list)
    for kind, headers, body, refused in seen:
        headers = {name.lower(): value for name, value in headers.items()}
        Webhook(SYMMETRIC).verify(body, headers)
        verified_asymmetric(headers, body)
        try:
            Webhook(SYMMETRIC).verify(body + b" ", headers)
            sys.exit("a changed body is taken for good")
        except WebhookVerificationError:
            pass
        by_kind[kind].append((headers, body, refused))
    sent = [json.loads(event) for event in EVENTS]
    ids = {}
    for kind in FORMATS:
        came = by_kind[kind]
        assert came[0][2] and not came[1][2], f"{kind}: the first is refused once"
        if kind != "batch":
            assert came[0][0]["webhook-id"] == came[1][0]["webhook-id"], f"{kind}: the id is constant over retries"
        events = [event for headers, body, refused in came if not refused for event in events_of(kind, headers, body)]
        assert [event.get_data() for event in events] == sent, f"{kind}: {[event.get_data() for event in events]}"
        ids[kind] = [event.get_id() for event in events]
        for event, wanted in zip(events, sent):
            assert event.get_specversion() == "1.0"
            assert event.get_source() == "/v1/apps/demo-app/events/user_events"
            assert event.get_type() == wanted.get("type", "untyped"), event.get_type()
            assert event.get_datacontenttype() == "application/json"
            subject = None if "\n" in wanted["user_id"] else wanted["user_id"]
            assert event.get_subject() == subject, (event.get_subject(), subject)
            if "ms" in wanted:
                assert round(event.get_time().timestamp() * 1000) == wanted["ms"], event.get_time()
    assert ids["structured"] == ids["binary"] == ids["batch"], "an event has one id in every format"
    assert len(set(ids["batch"])) == len(EVENTS)


def main():
    binary, out = os.path.abspath(sys.argv[1]), sys.argv[2]
    receiver = Receiver()
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        vendor = f"127.0.0.1:{free_port()}"
        app = 'id = "demo-app"\nbasic = [{ api_key = "demo-key", api_secret = "demo-secret" }]\nevents_per_second = 0.0\n'
        (place / "vendor.toml").write_text(f"[[apps]]\n{app}")
        for name, text in [
            ("key", "demo-key"),
            ("secret", "demo-secret"),
            ("symmetric", SYMMETRIC),
            ("asymmetric", ASYMMETRIC),
        ]:
            (place / name).write_text(text)
        (place / "gateway.toml").write_text(configuration(folder, vendor, receiver.server_port))
        simulate = [binary, "simulate", "--listen", vendor, "--config", str(place / "vendor.toml")]
        sim, _ = start(simulate, "stdout", lambda line: line or None)
        serve = [binary, "serve", "--config", str(place / "gateway.toml")]
        gateway, _ = start(serve, "stderr", lambda line: True if '"ready"' in line else None)
        try:
            for event in EVENTS:
                request = urllib.request.Request(
                    f"http://{vendor}/_sim/apps/demo-app/events/user_events", event.encode(), method="POST"
                )
                urllib.request.urlopen(request).read()
            until = time.monotonic() + 30

            def taken():
                with receiver.lock:
                    good = [(kind, body) for kind, _, body, refused in receiver.seen if not refused]
                counts = collections.Counter()
                for kind, body in good:
                    counts[kind] += len(json.loads(body)) if kind == "batch" else 1
                return all(counts[kind] >= len(EVENTS) for kind in FORMATS)

            while not taken():
                if time.monotonic() > until:
                    sys.exit(f"not all came: {[(k, r) for k, _, _, r in receiver.seen]}")
                time.sleep(0.02)
        finally:
            gateway.terminate()
            gateway.wait(20)
            sim.terminate()
            sim.wait(20)
        assert gateway.returncode == 0, gateway.returncode
        check(receiver.seen)
        kept = [
            {"kind": kind, "headers": headers, "body": body.decode(), "refused": refused}
            for kind, headers, body, refused in receiver.seen
        ]
        pathlib.Path(out).write_text(json.dumps(kept))
    print(f"Python: {len(receiver.seen)} requests in {len(FORMATS)} formats verify and parse, v1 and v1a.")


main()
