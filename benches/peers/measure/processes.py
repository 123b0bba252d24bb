"""Processes that this measure starts, and what the system says of them."""

from __future__ import annotations

import http.client
import os
import pathlib
import signal
import subprocess
import time


class Failed(Exception):
    """Something could not be measured; the text says why."""


def tree(pid: int) -> list[int]:
    """A process and all that it started."""
    found = [pid]
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            children = pathlib.Path(f"/proc/{pid}/task/{task}/children").read_text().split()
            for child in children:
                found += tree(int(child))
    except OSError:
        pass  # it has ended
    return found


def threads(pid: int) -> list[int]:
    return [int(task) for each in tree(pid) for task in os.listdir(f"/proc/{each}/task")]


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and all that it started, by the scheduler's own clock."""
    nanos = 0
    for each in tree(pid):
        for task in pathlib.Path(f"/proc/{each}/task").iterdir():
            try:
                nanos += int((task / "schedstat").read_text().split()[0])
            except OSError:
                pass  # a thread that has ended
    return nanos / 1e9


def memory_kib(pid: int) -> dict[str, int]:
    """Resident memory (what several processes share counts for each), and with what is shared divided between them."""
    resident, proportional = 0, 0
    for each in tree(pid):
        for line in pathlib.Path(f"/proc/{each}/smaps_rollup").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name == "Rss":
                resident += int(rest.split()[0])
            elif name == "Pss":
                proportional += int(rest.split()[0])
    return {"resident": resident, "proportional": proportional}


def ask(port: int, method: str, path: str, headers: dict, body: str | None = None, tls=None) -> tuple[int, bytes]:
    """One request on a connection of its own: status and body."""
    if tls:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=tls)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body=body, headers=headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


class Process:
    """A process that is pinned to cores, logs to a file, and is ended with this measure."""

    running: list["Process"] = []

    def __init__(self, name: str, argv: list, cores: list[int], folder: pathlib.Path, env: dict | None = None):
        self.name = name
        self.log = folder / "output.log"
        with open(self.log, "ab") as log:
            self.child = subprocess.Popen(
                [str(word) for word in argv],
                env={**os.environ, **(env or {})},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=lambda: os.sched_setaffinity(0, cores),
            )
        Process.running.append(self)

    @property
    def pid(self) -> int:
        return self.child.pid

    def wait_until(self, ready, patience: float) -> None:
        """Waits until `ready()` is true. An exception of a connection that cannot be made yet counts as not."""
        end = time.monotonic() + patience
        while True:
            if self.child.poll() is not None:
                raise Failed(f"{self.name} ended with {self.child.returncode}: {self.last_words()}")
            try:
                if ready():
                    return
            except (OSError, http.client.HTTPException):
                pass
            if time.monotonic() > end:
                raise Failed(f"{self.name} was not ready within {patience:.0f} s: {self.last_words()}")
            time.sleep(0.05)

    def last_words(self) -> str:
        text = self.log.read_text(errors="replace").strip()
        return text[-300:] if text else "it said nothing"

    def stop(self) -> None:
        if self.child.poll() is None:
            family = tree(self.pid)
            self.child.terminate()
            try:
                self.child.wait(4)
            except subprocess.TimeoutExpired:
                for each in reversed(family):
                    try:
                        os.kill(each, signal.SIGKILL)
                    except ProcessLookupError:
                        pass
                self.child.wait(4)
        if self in Process.running:
            Process.running.remove(self)

    @classmethod
    def stop_all(cls) -> None:
        for process in list(cls.running):
            process.stop()
