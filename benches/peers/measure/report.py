"""benches/RESULTS.md."""

from __future__ import annotations

import collections

from .figures import TITLES, least, lower_quartile, median, paired, ratio, title
from .variants import LATENCY_OF, PACES, PROXIES, VARIANTS

HOW = """\
Written by `benches/peers/run` ([how to run it](../docs/performance.md#peers)); what is edited here is lost by its next
run.

Every proxy does the same work: it checks the caller's key and takes it off, puts the vendor's credential on, counts the
App ID against a limit that is never reached, and forwards over kept connections. The upstream, an nginx, refuses what was
not rewritten so, and a wrong key was seen to be refused by each before it was measured. One core for the proxy, one for
load and upstream; one worker and no access log where nothing else is said. The message is a POST of 74 bytes, answered
with 61. Bare hyper is the smallest proxy on the gateway's own libraries (`benches/peers/hyper-proxy`).

**CPU** is the proxy's own, with what the kernel does for it, in a closed loop. Up to {windows} windows of {seconds} s each
(the last table has how many), interleaved in turned order; told are ratios of minima, since noise only ever adds. A
difference of less than three parts in a hundred is none. **Instructions** are those in user space, counted by callgrind
after 500 requests, and do not depend on the machine's being quiet. An allocation is a call of malloc, calloc, realloc or
what jemalloc has in their place.
"""


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def number(value: float | None, digits: int = 2, mark: str = "") -> str:
    return "–" if value is None or value != value else f"{value:,.{digits}f}{mark}"


def write(results: dict) -> str:
    windows = results["windows"]
    parts = ["# The gateway beside other proxies\n", HOW.format(windows=windows["rounds"], seconds=windows["seconds"])]
    parts.append(machine(results))
    for section in (cpu_beside, cpu_pairs, instructions, syscalls, latency, memory, spread, left_out):
        text = section(results)
        if text:
            parts.append(text)
    return "\n".join(parts)


def machine(results: dict) -> str:
    about = results["machine"]
    rows = [
        ["date", about["date"]],
        ["machine", f"{about['cpu']}, {about['memory']}, {about['system']}; load average at the start {about['load']}"],
        ["rtm-gateway", f"{results['versions'].get('gateway', '?')}, {results['commit']}, `{results['binary']}`"],
    ]
    rows += [[TITLES[key], text] for key, text in results["versions"].items() if key != "gateway"]
    rows += [["built with", about["rust"]], ["measured with", about["tools"]]]
    return "## What was measured\n\n" + table(["", ""], rows)


def columns(results: dict) -> list[str]:
    return [peer for peer in PROXIES if peer in results["versions"]]


def cpu_beside(results: dict) -> str:
    peers = [peer for peer in columns(results) if peer != "nginx"]
    rows = []
    for variant in VARIANTS:
        samples = results["cpu"].get(variant.key)
        if not samples or not variant.base or variant.base not in samples:
            continue
        row = [variant.title, number(least(samples[variant.base]), 1, " µs")]
        row += [number(ratio(samples, peer, variant.base)) for peer in peers]
        rows.append(row)
    if not rows:
        return ""
    note = ""
    if results["cpu"].get("count"):
        note += "Of the count the 1 is nginx that forwards a message: no peer has an answer of its own.\n"
    if results["cpu"].get("workers") and len(results["proxy_cores"]) < 3:
        note += "Two workers have both cores of this machine; load and upstream share the second.\n"
    head = ["CPU a request, nginx = 1", "nginx"] + [TITLES[peer] for peer in peers]
    return "## CPU beside nginx\n\n" + table(head, rows) + "\n" + note


def cpu_pairs(results: dict) -> str:
    rows = []
    for variant in VARIANTS:
        samples = results["cpu"].get(variant.key, {})
        for label, base in variant.pairs:
            found = ratio(samples, label, base)
            if found is not None:
                rows.append(
                    [
                        variant.title,
                        TITLES[base],
                        number(least(samples[base]), 1, " µs"),
                        number((found - 1) * 100, 0, " %"),
                    ]
                )
    if not rows:
        return ""
    head = ["what", "proxy", "CPU without it", "with it, more"]
    plain, logged = (results["instructions"].get(key, {}).get("gateway") for key in ("plain", "logged"))
    note = ""
    if plain and logged:
        more = (logged["instructions"] / plain["instructions"] - 1) * 100
        note = f"\nIn instructions the gateway's access log adds {more:.1f} % to a message.\n"
    return "## What something adds\n\n" + table(head, rows) + note


def instructions(results: dict) -> str:
    counted = results["instructions"]
    if not any(counted.values()):
        return ""
    hyper = counted.get("plain", {}).get("hyper")
    rows = []
    for key, what in results["counted_titles"].items():
        for label, found in counted.get(key, {}).items():
            row = [what, title(label), number(found["instructions"], 0)]
            row.append(number(found["instructions"] / hyper["instructions"]) if hyper else "–")
            # What nginx, HAProxy and Envoy take from pools of their own is no call of malloc.
            own = label.split(",")[0] in ("gateway", "hyper")
            row.append(number(found["allocations"], 1) if own else "–")
            row.append(number(found["allocations"] - hyper["allocations"], 1) if own and hyper else "–")
            rows.append(row)
    head = [
        "what",
        "proxy",
        "instructions",
        "bare hyper's message = 1",
        "allocations",
        "more than bare hyper's message",
    ]
    return "## Instructions and allocations a request\n\n" + table(head, rows)


def syscalls(results: dict) -> str:
    peers = columns(results)
    rows = []
    for variant in VARIANTS:
        found = results["syscalls"].get(variant.key)
        if found:
            rows.append([variant.title] + [number(found.get(peer), 2) for peer in peers])
    return "## Syscalls a request\n\n" + table(["what"] + [TITLES[peer] for peer in peers], rows) if rows else ""


def latency(results: dict) -> str:
    found = results["latency"]
    labels = [label for label in ("direct", *LATENCY_OF) if any(label in by for by in found.values())]
    rows = []
    for pace in PACES:
        by_label = found.get(pace.key)
        if by_label:
            cells = [by_label.get(label) for label in labels]
            text = [f"{cell['p50_us']:.0f}, {cell['p99_us']:.0f}" if cell else "–" for cell in cells]
            rows.append([pace.title] + text)
    if not rows:
        return ""
    note = (
        "Microseconds, p50 and p99, the median of rounds. Where nothing else is said all parties had the real-time "
        "scheduler, and cores that do not halt. At a constant rate latency counts from when a request was due.\n"
    )
    return "## Latency\n\n" + table(["pace"] + [TITLES[label] for label in labels], rows) + "\n" + note


def memory(results: dict) -> str:
    rows = []
    for peer, found in results["memory"].items():
        idle, callers = found["idle"], found["callers"]
        row = [TITLES[peer]]
        row += [number(at["resident"] / 1024, 1) for at in (idle, callers)]
        row += [number(at["proportional"] / 1024, 1) for at in (idle, callers)]
        row.append(number((callers["resident"] - idle["resident"]) / 1000, 1))
        rows.append(row)
    head = ["MiB", "idle", "1000 idle callers", "idle, shared pages divided", "1000 callers, likewise", "KiB a caller"]
    note = "Resident, of a fresh process; each of the 1000 callers has had one answer on its connection.\n"
    return "## Memory\n\n" + table(head, rows) + "\n" + note if rows else ""


def spread(results: dict) -> str:
    """For who doubts a ratio."""
    rows = []
    for variant in VARIANTS:
        samples = results["cpu"].get(variant.key, {})
        bases = dict(variant.pairs)
        for label, windows in samples.items():
            base = samples.get(bases.get(label, variant.base or ""), [])
            row = [variant.title, title(label), str(len(windows))]
            row += [number(of(windows), 1) for of in (least, lower_quartile, median)]
            row.append(number(paired(windows, base)) if base else "–")
            row.append(number(max(sample["rate"] for sample in windows), 0))
            rows.append(row)
    head = [
        "what",
        "proxy",
        "windows",
        "least µs",
        "lower quartile",
        "median",
        "median of paired ratios",
        "best requests/s",
    ]
    return "## All windows\n\n" + table(head, rows) if rows else ""


def left_out(results: dict) -> str:
    if not results["left_out"]:
        return "## What was left out\n\nNothing.\n"
    times = collections.Counter(results["left_out"])
    lines = [f"- {text}" + (f" ({count} times)" if count > 1 else "") for text, count in times.items()]
    return "## What was left out\n\n" + "\n".join(lines) + "\n"
