"""Proxies that run, and that do their work."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import time

from . import places, vendor
from .peers import Peer
from .processes import Failed, Process, ask
from .variants import EVENTS, MESSAGE, PROXIES, Entrant


def tell(text: str) -> None:
    print(f"{time.strftime('%T')} {text}", flush=True)


@dataclasses.dataclass
class Run:
    """A measure of all: who takes part, how long, and what came of it."""

    peers: dict[str, Peer]
    # None: as many as each variant says.
    rounds: int | None
    seconds: float
    warmup: float
    latency_rounds: int
    latency_seconds: float
    counted: tuple[str, ...] = PROXIES
    left_out: list[str] = dataclasses.field(default_factory=list)

    def leave_out(self, text: str) -> None:
        tell(f"left out: {text}")
        self.left_out.append(text)

    def present(self, entrants) -> list[Entrant]:
        return [entrant for entrant in entrants if entrant.peer in self.peers]


@dataclasses.dataclass
class Instance:
    """An entrant's process."""

    entrant: Entrant
    process: Process
    port: int
    folder: pathlib.Path

    @property
    def pid(self) -> int:
        return self.process.pid


def start(run: Run, entrant: Entrant, number: int, wrapper: list | None = None, patience: float = 15) -> Instance:
    """Starts a proxy and makes sure that it does its work."""
    folder = vendor.fresh_folder(entrant.label.replace(", ", "-"))
    port = places.PROXY_PORTS + number
    command = run.peers[entrant.peer].command(entrant.setup, folder, port)
    cores = places.proxy_cores(entrant.setup.workers)
    process = Process(entrant.label, (wrapper or []) + command.argv, cores, folder, command.env)
    instance = Instance(entrant, process, port, folder)
    try:
        process.wait_until(lambda: speak(instance, {})[0] > 0, patience)
        if entrant.setup.events:
            vendor.let_events_occur()
        prove(instance)
    except Exception:
        process.stop()
        raise
    return instance


def speak(instance: Instance, headers: dict) -> tuple[int, bytes]:
    entrant = instance.entrant
    tls = vendor.trust() if entrant.setup.listen_tls else None
    request = entrant.request
    return ask(instance.port, request.method, request.path, headers, request.body, tls)


def prove(instance: Instance) -> None:
    """A good key is answered with what the upstream gives only to what was rewritten; a wrong one is not."""
    request = instance.entrant.request
    end = time.monotonic() + 10
    while True:
        status, body = speak(instance, request.headers)
        if status == 200 and (request != EVENTS or body.count(b'"Join"') == vendor.EVENTS):
            break
        if request != EVENTS or time.monotonic() > end:
            raise Failed(f"{instance.entrant.label} answers {status}, {body[:200]!r}")
        time.sleep(0.1)  # the gateway has yet to read the vendor's events
    if request == MESSAGE and body != vendor.ANSWER.encode():
        raise Failed(f"{instance.entrant.label} gives another answer than the upstream's: {body[:200]!r}")
    if request == EVENTS:
        (places.WWW / "events.json").write_bytes(body)
    status, _ = speak(instance, {**request.headers, "X-Api-Key": "wrong"})
    if status not in (401, 403):
        raise Failed(f"{instance.entrant.label} answers a wrong key with {status}")


@contextlib.contextmanager
def started(run: Run, entrants: list[Entrant], what: str):
    """All of them, or those that start."""
    instances: list[Instance] = []
    try:
        for number, entrant in enumerate(entrants):
            try:
                instances.append(start(run, entrant, number))
            except Failed as why:
                run.leave_out(f"{what}: {entrant.label}: {why}")
        yield instances
    finally:
        for instance in instances:
            instance.process.stop()
