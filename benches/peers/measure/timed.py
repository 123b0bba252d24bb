"""What is measured in time, and memory: CPU time, latency, what is resident."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import statistics
import subprocess
import sys
import time

from . import load, places
from .instances import Instance, Run, start, started
from .load import IdleConnections
from .processes import Failed, Process, memory_kib, threads
from .variants import DIRECT, LATENCY_OF, MESSAGE, PACES, PROXIES, Entrant, Pace, Variant

# Requests of the first window by TLS, which tells how many fill the later ones.
FIRST_REQUESTS = 1000


def measure_window(run: Run, variant: Variant, instance: Instance, before: list[dict]) -> load.Sample:
    request = instance.entrant.request
    if variant.caller != "http1":
        requests = round(before[-1]["rate"] * run.seconds) if before else FIRST_REQUESTS
        http2 = variant.caller == "http2"
        return load.tls_window(instance.port, request, instance.pid, http2, max(requests, 200), instance.folder)
    beside = contextlib.nullcontext()
    if variant.idle:
        beside = IdleConnections(instance.port, request, variant.idle)
    with beside:
        return load.window(instance.port, request, instance.pid, variant.connections, run.seconds, run.warmup)


def cpu(run: Run, variant: Variant) -> dict:
    """CPU time a request of each entrant, window by window. Windows are short and interleaved, and the order is turned
    round: noise comes in bursts of seconds and only ever adds."""
    if variant.caller != "http1" and not shutil.which("h2load"):
        run.leave_out(f"{variant.title}: h2load is not installed (nghttp2-client)")
        return {}
    samples: dict[str, list[dict]] = {}
    with started(run, run.present(variant.entrants), variant.title) as instances:
        for round_ in range(run.rounds or variant.rounds):
            turn = round_ % max(len(instances), 1)
            order = instances[turn:] + instances[:turn]
            for instance in reversed(order) if round_ % 2 else order:
                label = instance.entrant.label
                try:
                    sample = measure_window(run, variant, instance, samples.get(label, []))
                except Failed as why:
                    run.leave_out(f"{variant.title}: a window of {label}: {why}")
                    continue
                samples.setdefault(label, []).append({"round": round_, **dataclasses.asdict(sample)})
    return samples


SPIN = (
    "import os, sys, time\n"
    "os.sched_setaffinity(0, [int(sys.argv[1])]); os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\n"
    "end = time.monotonic() + float(sys.argv[2])\n"
    "while time.monotonic() < end: pass\n"
)


@contextlib.contextmanager
def steady(pids: list[int], seconds: float):
    """The real-time scheduler for these, and an idle loop on each core so that none halts: a virtual core that has
    halted wakes up late, and differently late each time."""
    cores = {*places.proxy_cores(1), places.LOAD_CORE}
    spinners = [subprocess.Popen([sys.executable, "-c", SPIN, str(core), str(seconds)]) for core in cores]
    try:
        schedule(pids, os.SCHED_FIFO, 1)
        yield
    finally:
        schedule(pids, os.SCHED_OTHER, 0)
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


def schedule(pids: list[int], policy: int, priority: int) -> None:
    for pid in pids:
        for thread in threads(pid):
            try:
                os.sched_setscheduler(thread, policy, os.sched_param(priority))
            except ProcessLookupError:
                pass  # it has ended meanwhile


def may_be_real_time() -> bool:
    """Whether this user may: root, or one with CAP_SYS_NICE."""
    probe = "import os; os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))"
    return subprocess.run([sys.executable, "-c", probe], capture_output=True).returncode == 0


def real_time_load() -> None:
    load.on_load_core()
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


def latency(run: Run, upstream: Process) -> dict:
    """Median over rounds of p50 and p99 of each pace, and of the upstream without a proxy."""
    real_time = may_be_real_time()
    if not real_time:
        run.leave_out("the real-time scheduler for latency: this user may not; latencies are of ordinary scheduling")
    samples: dict[str, dict[str, list]] = {pace.key: {} for pace in PACES}
    entrants = run.present(Entrant(peer) for peer in LATENCY_OF)
    with started(run, entrants, "latency") as instances:
        for round_ in range(run.latency_rounds):
            for pace in PACES:
                order: list[Instance | None] = [None, *instances]
                for instance in reversed(order) if round_ % 2 else order:
                    label = instance.entrant.label if instance else "direct"
                    try:
                        report = pace_once(run, pace, instance, upstream, real_time and pace.steady)
                    except Failed as why:
                        run.leave_out(f"latency, {pace.title}: a round of {label}: {why}")
                        continue
                    samples[pace.key].setdefault(label, []).append((report["p50_us"], report["p99_us"]))
    return {key: {label: medians(seen) for label, seen in by_label.items()} for key, by_label in samples.items()}


def medians(seen: list[tuple[float, float]]) -> dict[str, float]:
    return {"p50_us": statistics.median(p50 for p50, _ in seen), "p99_us": statistics.median(p99 for _, p99 in seen)}


def pace_once(run: Run, pace: Pace, instance: Instance | None, upstream: Process, real_time: bool) -> dict:
    port, request, pid = places.UPSTREAM_PORT, DIRECT, None
    pids = [upstream.pid]
    if instance:
        port, request, pid = instance.port, instance.entrant.request, instance.pid
        pids.append(pid)
    options = dict(connections=pace.connections, rate=pace.rate, seconds=run.latency_seconds, warmup=0.3)
    if not real_time:
        return load.run_load(port, request, pid, **options)
    with steady(pids, run.latency_seconds + 10):
        return load.run_load(port, request, pid, prepare=real_time_load, **options)


def memory(run: Run) -> dict:
    """Of a fresh process: idle, and with a thousand callers that had one request each."""
    found = {}
    for peer in PROXIES:
        if peer not in run.peers:
            continue
        try:
            instance = start(run, Entrant(peer), 0)
        except Failed as why:
            run.leave_out(f"memory: {peer}: {why}")
            continue
        try:
            time.sleep(1)
            idle = memory_kib(instance.pid)
            with IdleConnections(instance.port, MESSAGE, 1000):
                time.sleep(2)
                found[peer] = {"idle": idle, "callers": memory_kib(instance.pid)}
        except Failed as why:
            run.leave_out(f"memory: {peer}: {why}")
        finally:
            instance.process.stop()
    return found
