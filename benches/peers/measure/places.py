"""Where things are, and which core has which part."""

import os
import pathlib

HERE = pathlib.Path(__file__).resolve().parent.parent
PROJECT = HERE.parent.parent
CONF = HERE / "conf"
TARGET = PROJECT / "target" / "peers"
RUN = TARGET / "run"
WWW = RUN / "www"
CRATES = TARGET / "build" / "release"
VENV = TARGET / "venv"

# The upstream, the simulated vendor, and from where on proxies listen: a port each, and one for the gateway's
# operators.
UPSTREAM_PORT, UPSTREAM_TLS_PORT, SIMULATOR_PORT = 19080, 19443, 19081
PROXY_PORTS, ADMIN_PORTS = 19100, 19200

_ALLOWED = sorted(os.sched_getaffinity(0))
LOAD_CORE = _ALLOWED[-1]


def proxy_cores(workers: int) -> list[int]:
    """A core for each worker. The load and the upstream have the last one, with the second worker if there are but two."""
    return _ALLOWED[:workers]


def enough_cores() -> bool:
    return len(_ALLOWED) >= 2
