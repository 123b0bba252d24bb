"""Server-Sent Events as other people's clients read them. Run by sse.sh.

A gateway and a simulated vendor run as processes. Each client reads a subscription of its own while events occur and the
gateway is stopped and started twice; what it got must be what occurred, each event once and in order.
"""

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import zlib

import httpx
import httpx_sse
import requests
import sseclient

BINARY, ENV = sys.argv[1], sys.argv[2]
WITH_BROWSER = "--browser" in sys.argv
EVENTS = 300
PAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sse.js")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Stage:
    """A simulated vendor, and a gateway in front of it."""

    def __init__(self, folder):
        self.folder, self.sent = folder, []
        self.vendor, self.port, self.admin = free_port(), free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1/apps/demo-app/events/user_events"
        key = subprocess.run([BINARY, "client-key", "reader"], capture_output=True, text=True, check=True).stdout
        self.key = key.splitlines()[0]
        digest = next(line.split('"')[1] for line in key.splitlines() if line.startswith("api_key_sha256"))
        self.write("vendor.toml", """
            [[apps]]
            id = "demo-app"
            basic = [{ api_key = "demo-key", api_secret = "demo-secret" }]
            events_per_second = 0.0
            [apps.limits]
            user_events = { requests = 100, per = "1s" }
            channel_events = { requests = 100, per = "1s" }
        """)
        self.write("key", "demo-key")
        self.write("secret", "demo-secret")
        self.write("gateway.toml", f"""
            [server]
            listen = ["127.0.0.1:{self.port}"]
            [admin]
            listen = "127.0.0.1:{self.admin}"
            [store]
            path = "{folder}/data"
            [[apps]]
            id = "demo-app"
            regions = [{{ name = "loopback", base_url = "http://127.0.0.1:{self.vendor}" }}]
            [apps.credential]
            kind = "basic"
            api_key = {{ file = "{folder}/key" }}
            api_secret = {{ file = "{folder}/secret" }}
            [apps.quota]
            user_events = {{ requests = 100, per = "1s" }}
            channel_events = {{ requests = 100, per = "1s" }}
            [apps.events]
            poll_interval = "20ms"
            poll_interval_idle = "50ms"
            [[clients]]
            name = "reader"
            api_key_sha256 = "{digest}"
            allow = [{{ app = "*", actions = ["events"] }}]
        """)
        self.running = [self.start("simulate", "--listen", f"127.0.0.1:{self.vendor}", "--config", f"{folder}/vendor.toml")]
        self.gateway = None
        self.serve()

    def write(self, name, text):
        with open(os.path.join(self.folder, name), "w") as file:
            file.write("\n".join(line.strip() for line in text.strip().splitlines()))

    def start(self, *args):
        log = open(os.path.join(self.folder, f"{args[0]}.log"), "a")
        return subprocess.Popen([BINARY, *args], stdout=log, stderr=log)

    def serve(self):
        self.gateway = self.start("serve", "--config", f"{self.folder}/gateway.toml")
        until = time.monotonic() + 30
        while time.monotonic() < until:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/readyz").close()
                return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.05)
        sys.exit(f"the gateway does not become ready; see {self.folder}/serve.log")

    def restart(self):
        self.gateway.send_signal(signal.SIGTERM)
        code = self.gateway.wait(timeout=40)
        assert code == 0, f"the gateway ended with {code}"
        self.serve()

    def emit(self, count):
        events = []
        for _ in range(count):
            n = len(self.sent)
            # Now and then of more than one line: it is read as one.
            text = json.dumps({"ms": 1700000000000 + n, "type": "Login" if n % 2 else "Logout", "user_id": f"ü{n}"},
                              ensure_ascii=False, indent=1 if n % 10 == 0 else None)
            events.append(text)
            self.sent.append(text)
        body = ("[" + ",".join(events) + "]").encode()
        url = f"http://127.0.0.1:{self.vendor}/_sim/apps/demo-app/events/user_events"
        urllib.request.urlopen(urllib.request.Request(url, body, method="POST")).close()

    def end(self):
        for process in [self.gateway, *self.running]:
            process.terminate()
            process.wait(timeout=40)


class Disturbance(threading.Thread):
    """Events that occur while a client reads, and a gateway that is stopped and started twice."""

    def __init__(self, stage):
        super().__init__(daemon=True)
        self.stage, self.first, self.failed = stage, len(stage.sent), None

    def run(self):
        try:
            for n in range(EVENTS // 10):
                self.stage.emit(10)
                time.sleep(0.05)
                if n in (EVENTS // 30, 2 * EVENTS // 30):
                    self.stage.restart()
        except BaseException as why:  # said by the main thread
            self.failed = why


def check(name, stage, read):
    """`read(url, expected count)` gives (type, id, data) of each event."""
    started = time.monotonic()
    before = len(stage.sent)
    disturbance = Disturbance(stage)
    disturbance.start()
    got = read(f"{stage.url}?subscription={name.split()[0].strip('.').replace('/', '-')}&from=earliest", before + EVENTS)
    disturbance.join()
    assert disturbance.failed is None, disturbance.failed
    assert [data for _, _, data in got] == stage.sent, difference(got, stage.sent)
    for kind, _, data in got:
        assert kind == json.loads(data)["type"], (kind, data)
    assert len({id for _, id, _ in got}) == len(got), "ids are places"
    print(f"ok: {name}: {len(got)} events, each once and in order, over 2 restarts; {time.monotonic() - started:.1f} s",
          flush=True)


def difference(got, sent):
    texts = [data for _, _, data in got]
    n = next((n for n, (a, b) in enumerate(zip(texts, sent)) if a != b), min(len(texts), len(sent)))
    return f"{len(got)} of {len(sent)} events; the first that is not as expected is {n}: {texts[n:n + 2]} for {sent[n:n + 2]}"


def reconnecting(connect):
    """Reads with a client that does not reconnect by itself; leaves it in the middle, too."""
    def read(url, count):
        got, last, until = [], None, time.monotonic() + 60
        while len(got) < count and time.monotonic() < until:
            headers = {"Last-Event-ID": last} if last else {}
            try:
                for n, (kind, last, data) in enumerate(connect(url, headers)):
                    got.append((kind, last, data))
                    # Mid-stream, with events of the same batch still on their way.
                    if len(got) == count or n == 17:
                        break
            except (httpx.HTTPError, requests.exceptions.RequestException):
                time.sleep(0.1)
        return got
    return read


def by_httpx_sse(key):
    def connect(url, headers):
        with httpx.Client(timeout=20) as client:
            headers = {"X-API-Key": key, "Cache-Control": "no-store", **headers}
            with httpx_sse.connect_sse(client, "GET", url, headers=headers) as source:
                for event in source.iter_sse():
                    yield event.event, event.id, event.data
    return connect


def by_sseclient_py(key):
    def connect(url, headers):
        headers = {"X-API-Key": key, "Accept": "text/event-stream", **headers}
        with requests.get(url, headers=headers, stream=True, timeout=20) as response:
            response.raise_for_status()
            for event in sseclient.SSEClient(response).events():
                yield event.event, event.id, event.data
    return connect


def by_npm_eventsource(key):
    """It reconnects by itself, as a browser does."""
    def read(url, count):
        script = """
            import { EventSource } from 'eventsource'
            const [url, key, count] = process.argv.slice(1)
            const source = new EventSource(url, {
              fetch: (input, init) => fetch(input, { ...init, headers: { ...init.headers, 'X-API-Key': key } }),
            })
            const got = []
            // Exits once all of it is written: a pipe takes 64 KiB at a time.
            const done = () => process.stdout.write(JSON.stringify(got), () => process.exit(0))
            const take = ({ type, lastEventId, data }) => {
              got.push([type, lastEventId, data])
              if (got.length === Number(count)) done()
            }
            for (const type of ['Login', 'Logout']) source.addEventListener(type, take)
            setTimeout(done, 60000)
        """
        run = subprocess.run(["node", "--input-type=module", "-e", script, url, key, str(count)], cwd=ENV,
                             capture_output=True, text=True, timeout=90)
        assert run.returncode == 0, run.stderr
        return [tuple(event) for event in json.loads(run.stdout)]
    return read


def by_browser(page):
    """A page of the gateway's own origin, so that the browser sends what it was told of itself (Basic)."""
    def read(url, count):
        return [tuple(event) for event in page.evaluate("([url, count]) => listen(url, count, 60000)", [url, count])]
    return read


def check_reset(page, stage):
    place = (5).to_bytes(8, "big") + (9).to_bytes(8, "big")
    other = base64.urlsafe_b64encode(place + zlib.crc32(b"cursor1" + place).to_bytes(4, "big")).decode().rstrip("=")
    event = page.evaluate("url => first(url, 'reset', 20000)", f"{stage.url}?after={other}")
    data = json.loads(event[2])
    assert event[1] == data["earliest"] and data["lost"] is None, event
    # And goes on from there, from the first event kept.
    again = page.evaluate("url => first(url, 'Logout', 20000)", f"{stage.url}?after={event[1]}")
    assert again[2] == stage.sent[0], again
    print("ok: the browser is told of a reset, and reads on from `earliest`", flush=True)


def browser(stage):
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "no browser: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = browser.new_context(http_credentials={"username": "reader", "password": stage.key})
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{stage.port}/")
        with open(PAGE) as script:
            page.evaluate("source => { (0, eval)(source) }", script.read())
        check(f"EventSource of Chromium {browser.version}", stage, by_browser(page))
        check_reset(page, stage)
        browser.close()


def main():
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(folder)
        passed = 0
        try:
            checks = [("httpx-sse (PyPI)", reconnecting(by_httpx_sse(stage.key))),
                      ("sseclient-py (PyPI)", reconnecting(by_sseclient_py(stage.key)))]
            if os.path.isdir(f"{ENV}/node_modules/eventsource") and shutil.which("node"):
                checks.append(("eventsource (npm)", by_npm_eventsource(stage.key)))
            for name, read in checks:
                check(name, stage, read)
                passed += 1
            if WITH_BROWSER:
                browser(stage)
                passed += 1
            print(f"{passed} passed, 0 failed")
        finally:
            stage.end()


main()
