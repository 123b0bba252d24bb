"""What is measured, as data."""

from __future__ import annotations

import dataclasses

from .load import Request
from .peers import Setup

# In the order of the tables.
PROXIES = ("gateway", "hyper", "nginx", "haproxy", "envoy", "pingora")

MESSAGE = Request(
    "/dev/v2/project/app1/rtm/users/bot-1/peer_messages",
    '{"destination":"userB","enable_offline_messaging":false,"payload":"Hello"}',
)
DIRECT = dataclasses.replace(MESSAGE, path="/direct")
COUNT = Request(
    "/dev/v2/project/app1/rtm/message/history/count?destination=userA&start_time=1433088000&end_time=1433433600",
    shared=True,
)
EVENTS = Request("/dev/v2/project/app1/rtm/vendor/channel_events?after=earliest&limit=1000")
BULK = Request("/dev/v2/project/bulk/events")


# Whose instructions are counted in a quick run: under callgrind each takes seconds to start, Envoy minutes.
QUICKLY_COUNTED = ("gateway", "hyper", "nginx")


@dataclasses.dataclass(frozen=True)
class Entrant:
    """One process of a variant. `name` is its own in it: a peer may be there twice."""

    peer: str
    setup: Setup = Setup()
    request: Request = MESSAGE
    name: str = ""

    @property
    def label(self) -> str:
        return self.name or self.peer


@dataclasses.dataclass(frozen=True)
class Variant:
    """Entrants whose windows are interleaved, and counted under callgrind where `counted` says how many requests."""

    key: str
    title: str
    entrants: tuple[Entrant, ...]
    # Whose CPU time is 1: an entrant's label; or, in place of it, pairs of labels of which the second is the first's 1.
    base: str | None = "nginx"
    pairs: tuple[tuple[str, str], ...] = ()
    caller: str = "http1"  # "tls": HTTP/1.1 over TLS; "http2": HTTP/2 over TLS
    connections: int = 48
    idle: int = 0
    counted: int = 0
    quick: bool = False
    rounds: int = 10


def all_of(**setup) -> tuple[Entrant, ...]:
    return tuple(Entrant(peer, Setup(**setup)) for peer in PROXIES)


def with_and_without_log() -> tuple[Entrant, ...]:
    """All but bare hyper, which has no log of its own."""
    peers = [peer for peer in PROXIES if peer != "hyper"]
    logged = [Entrant(peer, Setup(access_log=True), name=f"{peer}, log") for peer in peers]
    return tuple([Entrant(peer) for peer in peers] + logged)


VARIANTS = (
    Variant("plain", "message, plain upstream", all_of(), counted=3000, quick=True),
    Variant("upstream-tls", "message, TLS 1.3 upstream", all_of(upstream_tls=True), counted=3000, quick=True),
    Variant("tls", "message by TLS, plain upstream", all_of(listen_tls=True), caller="tls", rounds=6),
    Variant(
        "tls-tls", "message by TLS, TLS upstream", all_of(listen_tls=True, upstream_tls=True), caller="tls", rounds=6
    ),
    Variant("http2", "message by HTTP/2, plain upstream", all_of(listen_tls=True), caller="http2", rounds=6),
    Variant(
        "http2-tls",
        "message by HTTP/2, TLS upstream",
        all_of(listen_tls=True, upstream_tls=True),
        caller="http2",
        rounds=6,
    ),
    Variant("workers", "message, two workers", all_of(workers=2), rounds=6),
    Variant("idle", "message, beside 1000 idle connections", all_of(), idle=1000, rounds=6),
    Variant(
        "events",
        "1000 waiting events, 100 kB",
        (Entrant("gateway", Setup(events=True), EVENTS), Entrant("nginx", Setup(), BULK)),
        connections=16,
        counted=300,
    ),
    Variant(
        "log",
        "message, with an access log",
        with_and_without_log(),
        base=None,
        pairs=tuple((f"{peer}, log", peer) for peer in PROXIES if peer != "hyper"),
    ),
    Variant(
        "names",
        "message, 1000 clients and 1000 apps configured",
        (Entrant("gateway"), Entrant("gateway", Setup(names=1000), name="gateway, 1000")),
        base=None,
        pairs=(("gateway, 1000", "gateway"),),
    ),
    Variant(
        "count",
        "a count from a shared result",
        (Entrant("gateway", Setup(), COUNT), Entrant("nginx", Setup(), MESSAGE, name="nginx, message")),
        base="nginx, message",
        counted=3000,
    ),
)

# Counted only: its CPU time is in `log`.
LOGGED = Variant(
    "logged", "message, with an access log", (Entrant("gateway", Setup(access_log=True)),), base=None, counted=3000
)


@dataclasses.dataclass(frozen=True)
class Pace:
    """A measure of latency. `steady`: all parties have the real-time scheduler and cores that never halt."""

    key: str
    title: str
    connections: int
    rate: int | None
    steady: bool


PACES = (
    Pace("rate", "2000 requests a second, 32 connections", 32, 2000, True),
    Pace("one", "one connection, closed loop", 1, None, True),
    Pace("one-plain", "one connection, closed loop, ordinary scheduling", 1, None, False),
)
LATENCY_OF = ("gateway", "hyper", "nginx", "envoy")
