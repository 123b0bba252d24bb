"""The machine, and what the proxies are."""

from __future__ import annotations

import os
import pathlib
import platform
import subprocess
import time

from . import places
from .peers import Peer, first_line


def machine() -> dict:
    model = "unknown CPU"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    kib = int(pathlib.Path("/proc/meminfo").read_text().split("MemTotal:")[1].split()[0])
    return {
        "cpu": f"{len(os.sched_getaffinity(0))} × {model}",
        "memory": f"{kib / 2**20:.0f} GiB",
        "system": f"Linux {platform.release()}",
        "load": pathlib.Path("/proc/loadavg").read_text().split()[0],
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "tools": ", ".join([first_line("valgrind", "--version"), first_line("h2load", "--version")]),
        "rust": first_line("rustc", "--version"),
    }


def commit() -> str:
    """Which state of the project is measured."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=places.PROJECT, capture_output=True, text=True
    )
    return done.stdout.strip() or "unknown"


def versions(peers: dict[str, Peer]) -> dict[str, str]:
    return {key: peer.version() for key, peer in peers.items()}
