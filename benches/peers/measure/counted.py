"""What is counted, and is the same on a busy machine: instructions, allocations, calls of the system."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import signal
import subprocess
import time

from . import load
from .instances import Instance, Run, start, started
from .peers import Setup
from .processes import Failed, tree
from .variants import MESSAGE, Entrant, Variant

# The functions that give memory: glibc's, jemalloc's, and others' by the same names.
ALLOCATION = re.compile(r"(_rjem_)?(malloc|calloc|realloc|mallocx|rallocx|memalign|posix_memalign|aligned_alloc)")


def instructions(run: Run, variant: Variant) -> dict:
    """Instructions in user space and allocations a request, counted by callgrind: the same on a busy machine."""
    found = {}
    for entrant in run.present(variant.entrants):
        if entrant.peer not in run.counted or is_counted_elsewhere(variant, entrant):
            continue
        try:
            found[entrant.label] = count_one(run, entrant, variant.counted)
        except (Failed, subprocess.SubprocessError) as why:
            run.leave_out(f"instructions, {variant.title}: {entrant.label}: {why}")
    return found


def is_counted_elsewhere(variant: Variant, entrant: Entrant) -> bool:
    """A plain message is in the variant of that name. Envoy takes a minute or two to start: it is counted there alone."""
    is_plain = (entrant.setup, entrant.request) == (Setup(), MESSAGE)
    return variant.key != "plain" and (entrant.peer == "envoy" or is_plain)


def count_one(run: Run, entrant: Entrant, requests: int) -> dict:
    counted = dataclasses.replace(entrant, setup=dataclasses.replace(entrant.setup, counted=True))
    wrapper = ["valgrind", "--tool=callgrind", "--callgrind-out-file=callgrind.out", "--quiet"]
    instance = start(run, counted, 50, wrapper, patience=240)
    try:
        for number, control in ((500, "--zero"), (requests, "--dump")):
            load.run_load(instance.port, entrant.request, None, connections=16, requests=number, seconds=150)
            done = subprocess.run(
                ["callgrind_control", control, str(instance.pid)], capture_output=True, text=True, timeout=60
            )
            if done.returncode:
                raise Failed(f"callgrind_control: {done.stderr.strip()[-200:]}")
            time.sleep(0.5)
        dumps = sorted(instance.folder.glob("callgrind.out.*"), key=lambda path: path.stat().st_mtime)
        if not dumps:
            raise Failed("callgrind wrote nothing")
        total, allocations = read_callgrind(dumps)
    finally:
        instance.process.stop()
    return {"instructions": total / requests, "allocations": allocations / requests}


def read_callgrind(dumps: list[pathlib.Path]) -> tuple[int, int]:
    """Instructions, and calls of functions that give memory. With `--dump` all threads are in one file; where there are
    more, each has its own part."""
    total, allocations = 0, 0
    for dump in dumps:
        names: dict[str, str] = {}
        callee = ""
        with open(dump, errors="replace") as lines:
            for line in lines:
                if line.startswith(("fn=", "cfn=")):
                    number, _, name = line.partition("=")[2].strip().partition(" ")
                    if name:
                        names[number] = name
                    if line.startswith("cfn="):
                        callee = names.get(number, "")
                elif line.startswith("calls=") and ALLOCATION.fullmatch(callee.partition("'")[0]):
                    allocations += int(line[6:].split()[0])
                elif line.startswith("totals:"):
                    total += int(line.split()[1])
    return total, allocations


def syscalls(run: Run, variant: Variant, requests: int = 20000) -> dict:
    """Calls of the system a request, by perf's tracepoint, or by strace where perf may not."""
    tool = next((tool for tool in (PerfCalls, StraceCalls) if tool.usable()), None)
    if not tool:
        run.leave_out("syscalls: neither perf (with its tracepoints) nor strace can be used here")
        return {}
    found = {}
    with started(run, run.present(variant.entrants), f"syscalls, {variant.title}") as instances:
        for instance in instances:
            try:
                with tool(instance) as counter:
                    load.run_load(
                        instance.port, instance.entrant.request, None, connections=48, requests=requests, seconds=60
                    )
                found[instance.entrant.label] = counter.calls() / requests
            except (Failed, subprocess.SubprocessError) as why:
                run.leave_out(f"syscalls, {variant.title}: {instance.entrant.label}: {why}")
    return found


class SyscallCounter:
    """Counts while it is entered."""

    def __init__(self, instance: Instance):
        self.report = instance.folder / "syscalls.txt"
        self.pids = tree(instance.pid)

    def argv(self) -> list[str]:
        raise NotImplementedError

    def __enter__(self):
        self.child = subprocess.Popen(self.argv(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.5)
        return self

    def __exit__(self, *_):
        self.child.send_signal(signal.SIGINT)
        try:
            self.child.wait(10)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


class PerfCalls(SyscallCounter):
    @staticmethod
    def usable() -> bool:
        probe = ["perf", "stat", "-x,", "-e", "raw_syscalls:sys_enter", "true"]
        try:
            done = subprocess.run(probe, capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return False
        return done.returncode == 0 and "not supported" not in done.stderr and "<not" not in done.stderr

    def argv(self):
        pids = ",".join(map(str, self.pids))
        return ["perf", "stat", "-x,", "-e", "raw_syscalls:sys_enter", "-o", str(self.report), "-p", pids]

    def calls(self) -> int:
        for line in self.report.read_text().splitlines():
            if "raw_syscalls" in line and line[0].isdigit():
                return int(line.split(",")[0])
        raise Failed("perf counted nothing")


class StraceCalls(SyscallCounter):
    @staticmethod
    def usable() -> bool:
        try:
            return subprocess.run(["strace", "-c", "true"], capture_output=True, timeout=20).returncode == 0
        except (OSError, subprocess.TimeoutExpired):
            return False

    def argv(self):
        return ["strace", "-c", "-f", "-o", str(self.report)] + [word for pid in self.pids for word in ("-p", str(pid))]

    def calls(self) -> int:
        for line in self.report.read_text().splitlines():
            words = line.split()
            if words and words[-1] == "total":
                return int(words[3])
        raise Failed("strace counted nothing")
