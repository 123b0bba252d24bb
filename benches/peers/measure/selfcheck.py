"""What can be told without a proxy: that variants fit together, that configurations are whole, that results can be told."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import tempfile

from . import chart, places, report, vendor
from .load import Sample
from .peers import Setup, all_peers
from .variants import LATENCY_OF, LOGGED, PACES, PROXIES, VARIANTS, Variant


def check() -> None:
    """Fails with an AssertionError that says what is wrong."""
    keys = [variant.key for variant in VARIANTS]
    assert len(set(keys)) == len(keys), "two variants of one key"
    for variant in (*VARIANTS, LOGGED):
        check_variant(variant)
    check_configurations()
    results = made_up()
    text, picture = report.write(results), chart.draw(results)
    for variant in VARIANTS:
        assert f"| {variant.title} |" in text, f"{variant.key} is not told"
    assert picture and all(title in picture for title in ("rtm-gateway", "Pingora")), "the chart is empty"


def check_variant(variant: Variant) -> None:
    labels = [entrant.label for entrant in variant.entrants]
    assert len(set(labels)) == len(labels), f"{variant.key}: two entrants of one name"
    assert not variant.base or variant.base in labels, f"{variant.key}: no {variant.base}"
    assert all(label in labels for pair in variant.pairs for label in pair), f"{variant.key}: pairs"
    assert all(entrant.peer in PROXIES for entrant in variant.entrants), f"{variant.key}: peers"


def check_configurations() -> None:
    """Each proxy's, for each thing that it can be asked for: nothing is left to be filled in."""
    setups = [Setup(), Setup(True, True, True, 2), Setup(names=3), Setup(events=True), Setup(counted=True)]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for peer in all_peers(pathlib.Path("rtm-gateway")).values():
            for setup in setups:
                peer.command(setup, folder, places.PROXY_PORTS)
        vendor.fill("upstream.conf", folder, PORT=1, TLS_PORT=2, WWW=folder, ANSWER=vendor.ANSWER)
        vendor.fill("simulator.toml", folder, NAME=vendor.NAME, SECRET=vendor.SECRET)
        written = {path.name: path.read_text() for path in folder.iterdir()}
    for template in places.CONF.iterdir():
        assert template.name in written, f"conf/{template.name} is nobody's"
    for file, text in written.items():
        left = re.findall(r"@[A-Z_]+@", text)
        assert not left, f"{file}: nothing stands for {left}"


def made_up() -> dict:
    """Results as a whole run has them."""
    sample = {"round": 0, **dataclasses.asdict(Sample(10.0, 1000.0))}
    counts = {"instructions": 1000.0, "allocations": 10.0}
    resident = {"resident": 1024, "proportional": 1024}
    counted = [variant for variant in (*VARIANTS, LOGGED) if variant.counted]
    about = ("cpu", "memory", "system", "load", "date", "tools", "rust")
    return {
        "machine": dict.fromkeys(about, "?"),
        "commit": "?",
        "versions": dict.fromkeys(PROXIES, "?"),
        "binary": "?",
        "windows": {"rounds": 1, "seconds": 1},
        "proxy_cores": [0, 1],
        "counted_titles": {variant.key: variant.title for variant in counted},
        "cpu": {variant.key: {entrant.label: [sample] for entrant in variant.entrants} for variant in VARIANTS},
        "instructions": {v.key: {entrant.label: counts for entrant in v.entrants} for v in counted},
        "syscalls": {"plain": dict.fromkeys(PROXIES, 4.0)},
        "latency": {pace.key: {label: {"p50_us": 1.0, "p99_us": 2.0} for label in LATENCY_OF} for pace in PACES},
        "memory": {peer: {"idle": resident, "callers": resident} for peer in PROXIES},
        "left_out": ["nothing, really"],
    }
