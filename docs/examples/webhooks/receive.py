"""Receives webhooks and verifies them by hand (Standard Webhooks, `v1`); there are libraries for it, too.
The key, as in the gateway's `secrets`, is in WEBHOOK_SECRET. Ends after COUNT events, if that is given.

Usage: receive.py PORT [COUNT]
"""

import base64
import hashlib
import hmac
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

KEY = base64.b64decode(os.environ["WEBHOOK_SECRET"].removeprefix("whsec_"))
TOLERANCE = 5 * 60


def is_genuine(headers, body):
    name, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not stamp.isdigit() or abs(time.time() - int(stamp)) > TOLERANCE:
        return False
    signed = hmac.digest(KEY, f"{name}.{stamp}.".encode() + body, hashlib.sha256)
    wanted = "v1," + base64.b64encode(signed).decode()
    # While keys are changed there are several.
    shown = headers.get("webhook-signature", "").split(" ")
    return any(hmac.compare_digest(wanted, one) for one in shown)


class Handler(BaseHTTPRequestHandler):
    seen = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        genuine = is_genuine(self.headers, body)
        self.send_response(204 if genuine else 401)
        self.end_headers()
        name = self.headers.get("webhook-id")
        # The same id is the same event: a try that ended in doubt comes again.
        if genuine and name not in self.seen:
            self.seen.append(name)
            event = json.loads(body)
            print(event["type"], event.get("subject"), event["data"], flush=True)

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
count = int(sys.argv[2]) if len(sys.argv) > 2 else None
while count is None or len(Handler.seen) < count:
    server.handle_request()
