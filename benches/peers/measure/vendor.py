"""What the proxies lead to: an nginx that refuses what was not rewritten, and a vendor that has events."""

from __future__ import annotations

import base64
import getpass
import json
import os
import pathlib
import shutil
import ssl
import subprocess
import time

from . import places
from .processes import Failed, Process, ask

API_KEY = "gk_test_0123456789abcdef0123456789abcdef"
NAME, SECRET = "customerkey", "customersecret"
CREDENTIAL = base64.b64encode(f"{NAME}:{SECRET}".encode()).decode()
ANSWER = '{"result":"success","count":1234567,"destination":"userABCD"}'
EVENTS = 1000

CA, CERT, KEY = (places.RUN / "tls" / name for name in ("ca.pem", "server.pem", "server.key"))


def fill(template: str, folder: pathlib.Path, **values) -> pathlib.Path:
    """Writes a configuration: the template of that name, with what stands for each @NAME@."""
    text = (places.CONF / template).read_text()
    common = dict(DIR=folder, CERT=CERT, KEY=KEY, CA=CA, API_KEY=API_KEY, CREDENTIAL=CREDENTIAL, USER=nginx_user())
    for name, value in {**common, **values}.items():
        text = text.replace(f"@{name}@", str(value))
    path = folder / template
    path.write_text(text)
    return path


def nginx_user() -> str:
    """nginx's workers may read what this user may, also where that is root, who becomes somebody else by default."""
    return f"user {getpass.getuser()};" if os.geteuid() == 0 else ""


def fresh_folder(name: str) -> pathlib.Path:
    folder = places.RUN / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def make_certificates() -> None:
    """An authority, and a certificate of `upstream.test` (and `localhost`) that upstream and proxies use."""
    folder = CA.parent
    if CERT.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    extensions = folder / "extensions"
    extensions.write_text(
        "subjectAltName=DNS:upstream.test,DNS:localhost\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n"
    )
    steps = [
        ["req", "-x509", *curve, "-days", "3650", "-subj", "/CN=peers", "-keyout", "ca.key", "-out", CA],
        ["req", *curve, "-subj", "/CN=upstream.test", "-keyout", KEY, "-out", "server.csr"],
        ["x509", "-req", "-in", "server.csr", "-CA", CA, "-CAkey", "ca.key", "-CAcreateserial", "-days", "3650"]
        + ["-out", CERT, "-extfile", extensions],
    ]
    for step in steps:
        subprocess.run(["openssl", *step], cwd=folder, check=True, capture_output=True)
    # HAProxy wants both in one file.
    (folder / "server.both.pem").write_text(CERT.read_text() + KEY.read_text())


def trust() -> ssl.SSLContext:
    """Of this measure's own requests, which go to 127.0.0.1, a name that the certificate has not."""
    context = ssl.create_default_context(cafile=str(CA))
    context.check_hostname = False
    return context


def start_upstream() -> Process:
    folder = fresh_folder("upstream")
    places.WWW.mkdir(parents=True, exist_ok=True)
    ports = dict(PORT=places.UPSTREAM_PORT, TLS_PORT=places.UPSTREAM_TLS_PORT)
    conf = fill("upstream.conf", folder, WWW=places.WWW, ANSWER=ANSWER, **ports)
    process = Process("upstream", ["nginx", "-c", conf, "-e", folder / "error.log"], [places.LOAD_CORE], folder)
    process.wait_until(lambda: ask(places.UPSTREAM_PORT, "GET", "/direct", {})[0] == 200, 5)
    return process


def start_simulator(gateway: pathlib.Path) -> Process:
    """A vendor that has events."""
    folder = fresh_folder("simulator")
    conf = fill("simulator.toml", folder, NAME=NAME, SECRET=SECRET)
    listen = f"127.0.0.1:{places.SIMULATOR_PORT}"
    argv = [gateway, "simulate", "--listen", listen, "--config", conf]
    process = Process("simulator", argv, [places.LOAD_CORE], folder)
    process.wait_until(lambda: ask(places.SIMULATOR_PORT, "GET", "/_sim/stats", {})[0] == 200, 10)
    return process


def let_events_occur() -> None:
    """Puts the events of one read into the simulated vendor's queue. Whoever reads them takes them away."""
    now = int(time.time() * 1000)
    events = [
        {"group_id": f"example_channel_{i % 50:04}", "ms": now - EVENTS + i, "type": "Join", "user_id": f"web{i:09}"}
        for i in range(EVENTS)
    ]
    body = json.dumps(events, separators=(",", ":"))
    status, text = ask(places.SIMULATOR_PORT, "POST", "/_sim/apps/app1/events/channel_events", {}, body)
    if status != 200:
        raise Failed(f"the simulator took no events: {status} {text[:200]!r}")
