"""What is told of the samples."""

from __future__ import annotations

import statistics

TITLES = {
    "gateway": "rtm-gateway",
    "hyper": "bare hyper",
    "nginx": "nginx",
    "haproxy": "HAProxy",
    "envoy": "Envoy",
    "pingora": "Pingora",
    "direct": "no proxy",
}


def title(label: str) -> str:
    peer, comma, rest = label.partition(",")
    return TITLES.get(peer, peer) + comma + rest


def least(samples: list[dict]) -> float:
    """Noise only ever adds, so the least is nearest to what the work costs."""
    return min(sample["cpu_us"] for sample in samples)


def lower_quartile(samples: list[dict]) -> float:
    costs = [sample["cpu_us"] for sample in samples]
    return statistics.quantiles(costs, n=4, method="inclusive")[0] if len(costs) > 1 else costs[0]


def median(samples: list[dict]) -> float:
    return statistics.median(sample["cpu_us"] for sample in samples)


def paired(samples: list[dict], base: list[dict]) -> float:
    """The median of the ratios of windows of the same round: the check of the ratio of minima."""
    others = {sample["round"]: sample["cpu_us"] for sample in base}
    ratios = [sample["cpu_us"] / others[sample["round"]] for sample in samples if sample["round"] in others]
    return statistics.median(ratios) if ratios else float("nan")


def ratio(samples: dict[str, list[dict]], label: str, base: str) -> float | None:
    """Of minima."""
    if not samples.get(label) or not samples.get(base):
        return None
    return least(samples[label]) / least(samples[base])
