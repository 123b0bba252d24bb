"""Requests: what is sent, and by which program."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import time

from . import places, vendor
from .processes import Failed, cpu_seconds, tree

LOAD = places.CRATES / "load"
PATIENCE, TLS_PATIENCE = 180, 60

# Requests that are under way at a window's ends count wrongly; with so many for each connection that does not matter.
LEAST_PER_CONNECTION = 20

HEADERS = {
    "X-Api-Key": vendor.API_KEY,
    "Authorization": "Bearer callers-token-that-is-taken-off",
    "Accept": "application/json",
    "User-Agent": "internal-client/1.0",
    "Cache-Control": "no-cache",
}


@dataclasses.dataclass(frozen=True)
class Request:
    path: str
    body: str | None = None
    # May be answered from what is there already.
    shared: bool = False

    @property
    def method(self) -> str:
        return "POST" if self.body else "GET"

    @property
    def headers(self) -> dict[str, str]:
        kept = {name: value for name, value in HEADERS.items() if not (self.shared and name == "Cache-Control")}
        return {**kept, "Content-Type": "application/json"} if self.body else kept


@dataclasses.dataclass(frozen=True)
class Sample:
    """A window: CPU time of the proxy a request, requests a second, and latencies, where they were measured."""

    cpu_us: float
    rate: float
    p50_us: float = float("nan")
    p99_us: float = float("nan")


def on_load_core() -> None:
    os.sched_setaffinity(0, [places.LOAD_CORE])


def load_argv(port: int, request: Request, **options) -> list[str]:
    argv = [str(LOAD), "--address", f"127.0.0.1:{port}", "--path", request.path]
    for name, value in request.headers.items():
        argv += ["--header", f"{name}: {value}"]
    if request.body:
        argv += ["--body", request.body]
    for name, value in options.items():
        if value is not None:
            argv += [f"--{name}", str(value)]
    return argv


def run_program(argv: list[str], patience: float, prepare=on_load_core) -> str:
    """What it prints. A program that does not come to its end is ended."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=patience, preexec_fn=prepare)
    except subprocess.TimeoutExpired:
        raise Failed(f"{pathlib.Path(argv[0]).name} did not end within {patience:.0f} s") from None
    if done.returncode:
        raise Failed(f"{pathlib.Path(argv[0]).name} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout


def run_load(port: int, request: Request, pid: int | None, prepare=on_load_core, **options) -> dict:
    """Runs our own load generator, and gives its report. Any answer but 200 is a fault of the measure."""
    pids = ",".join(map(str, tree(pid))) if pid else None
    argv = load_argv(port, request, pids=pids, **options)
    report = json.loads(run_program(argv, PATIENCE, prepare))
    if report["not_ok"] or report["failed"]:
        raise Failed(f"{report['not_ok']} answers that were not 200, {report['failed']} that did not come")
    return report


def window(port: int, request: Request, pid: int | None, connections: int, seconds: float, warmup: float) -> Sample:
    """A closed loop over HTTP/1.1 without TLS."""
    report = run_load(port, request, pid, connections=connections, seconds=seconds, warmup=warmup)
    if report["rate"] * report["seconds"] < LEAST_PER_CONNECTION * connections:
        raise Failed("too few requests in it: something else has the cores")
    return Sample(report["cpu_us"], report["rate"], report["p50_us"], report["p99_us"])


def tls_window(port: int, request: Request, pid: int, http2: bool, requests: int, folder: pathlib.Path) -> Sample:
    """A closed loop over TLS, by h2load: 16 connections of HTTP/1.1, or four of HTTP/2 with twelve streams each. The
    handshakes are in the CPU time: about one part in a hundred of it. It is told how many requests, not how long: with a
    length of time h2load sometimes does not end."""
    body = folder / "body.json"
    body.write_text(request.body or "")
    shape = ["-c", "4", "-m", "12"] if http2 else ["-c", "16", "--h1"]
    argv = ["h2load", *shape, "-n", str(requests), "-d", str(body)]
    for name, value in request.headers.items():
        argv += ["-H", f"{name}: {value}"]
    argv.append(f"https://127.0.0.1:{port}{request.path}")
    before = cpu_seconds(pid)
    text = run_program(argv, TLS_PATIENCE)
    spent = cpu_seconds(pid) - before
    good = re.search(r"status codes: (\d+) 2xx", text)
    spoken = re.search(r"Application protocol: (\S+)", text)
    rate = re.search(r"finished in .*?, ([\d.]+) req/s", text)
    if not good or not spoken or not rate or int(good[1]) != requests:
        raise Failed(f"h2load: {text.strip()[-300:]}")
    if (spoken[1] == "h2") != http2:
        raise Failed(f"the proxy speaks {spoken[1]}")
    return Sample(spent * 1e6 / requests, float(rate[1]))


class IdleConnections:
    """Connections that had one request each and are kept open beside what is measured."""

    def __init__(self, port: int, request: Request, count: int, seconds: int = 120):
        argv = load_argv(port, request, connections=count, seconds=seconds) + ["--hold"]
        self.child = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, preexec_fn=on_load_core)
        try:
            report = json.loads(self.child.stdout.readline() or "{}")
            if report.get("answered") != count:
                raise Failed(f"of {count} connections {report.get('answered')} were answered")
        except Exception:
            self.close()
            raise

    def __enter__(self) -> "IdleConnections":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        self.child.kill()
        self.child.wait()
        self.child.stdout.close()
        # What the proxy does about their end belongs to no window.
        time.sleep(0.2)
