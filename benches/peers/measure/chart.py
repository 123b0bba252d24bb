"""The README's chart: CPU a message beside nginx, as SVG that is read on light and on dark ground."""

from __future__ import annotations

import html

from .figures import TITLES, least, ratio
from .variants import PROXIES, VARIANTS

SHOWN = ("plain", "upstream-tls", "tls", "http2")
WIDTH, LEFT, RIGHT = 760, 120, 150
BAR, GAP, HEAD, TOP, BOTTOM = 15, 4, 30, 54, 34

STYLE = """
  text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #24292f; }
  .title { font-size: 16px; font-weight: 600; }
  .group { font-weight: 600; }
  .note { font-size: 12px; fill: #57606a; }
  .bar { fill: #9aa7b4; }
  .own { fill: #0969da; }
  .one { stroke: #57606a; stroke-dasharray: 3 3; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .note { fill: #9198a1; }
    .bar { fill: #57606a; }
    .own { fill: #4493f8; }
    .one { stroke: #9198a1; }
  }
"""


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{html.escape(words)}</text>'


def draw(results: dict) -> str | None:
    """Nothing, where no variant that it shows was measured beside nginx."""
    groups = []
    for variant in VARIANTS:
        samples = results["cpu"].get(variant.key, {})
        if variant.key in SHOWN and samples.get("nginx"):
            bars = [
                (peer, ratio(samples, peer, "nginx"), least(samples[peer])) for peer in PROXIES if samples.get(peer)
            ]
            groups.append((variant.title, sorted(bars, key=lambda bar: bar[1])))
    if not groups:
        return None
    longest = max(found for _, bars in groups for _, found, _ in bars)
    unit = (WIDTH - LEFT - RIGHT) / longest
    height = TOP + sum(HEAD + len(bars) * (BAR + GAP) for _, bars in groups) + BOTTOM
    body = [text(12, 26, "CPU time a forwarded message, nginx = 1", "title"), text(12, 45, "shorter is better", "note")]
    y = TOP
    for words, bars in groups:
        body.append(text(12, y + 19, words, "group"))
        y += HEAD
        bottom = y + len(bars) * (BAR + GAP)
        body.append(f'<line class="one" x1="{LEFT + unit:.1f}" x2="{LEFT + unit:.1f}" y1="{y - 3}" y2="{bottom}"/>')
        for peer, found, cost in bars:
            kind = "bar own" if peer == "gateway" else "bar"
            body.append(text(LEFT - 8, y + 12, TITLES[peer], anchor="end"))
            body.append(f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{found * unit:.1f}" height="{BAR}" rx="2"/>')
            body.append(text(LEFT + found * unit + 6, y + 12, f"{found:.2f}  ({cost:.1f} µs)"))
            y += BAR + GAP
    about = results["machine"]
    body.append(text(12, height - 12, f"{about['cpu']}, one worker, {about['date'][:10]}; benches/RESULTS.md", "note"))
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'role="img" aria-label="CPU time a forwarded message of rtm-gateway and of other proxies, relative to nginx">'
    )
    return "\n".join([head, f"<style>{STYLE}</style>", *body, "</svg>"]) + "\n"
