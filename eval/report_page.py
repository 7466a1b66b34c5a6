"""The report's frame: layout, style, and the one script that filters and sorts. Callers hand in HTML that is escaped
already.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

STYLE = """
:root { color-scheme: light dark; --ink: #1c2128; --ground: #fff; --soft: #f2f4f7; --line: #d5dae1; --accent: #2a6fdb; --bad: #c2334d }
:root { --pale: #5c6672; --pred: rgb(230 57 70); --true: rgb(60 220 110) }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e3e6ea; --ground: #15181c; --soft: #1e2329; --line: #353c45; --accent: #7fb0ff; --bad: #ff8095; --pale: #98a2ae }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); max-width: 1100px; margin: 0 auto }
body { padding: 16px 16px 64px } h1 { margin: 0 } h2 { margin-top: 36px; border-bottom: 1px solid var(--line) } h3 { margin: 0 }
.scroll { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums } a { color: var(--accent) }
td, th { padding: 4px 14px 4px 0; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top }
td:first-child { white-space: nowrap } .ours td { font-weight: 600 } small { display: block; font-weight: 400; white-space: nowrap }
small, .facts, .legend, h1 + p { color: var(--pale) } .columns, .controls { display: flex; flex-wrap: wrap; gap: 16px }
.columns > div { flex: 1 1 300px } .columns small { display: inline }
.charts { display: flex; flex-wrap: wrap; gap: 20px 28px } figure { margin: 0 } figcaption { font-size: 13px; margin-bottom: 2px }
rect { fill: var(--accent) } svg text { font-size: 10px; fill: var(--pale); text-anchor: middle } svg path { stroke: var(--line) }
.controls { position: sticky; top: 0; background: var(--ground); padding: 8px 0; align-items: center; z-index: 1 }
input, select { font: inherit; padding: 3px 6px; color: inherit; background: var(--soft) }
input, select { border: 1px solid var(--line); border-radius: 4px } #words { flex: 1 1 260px }
.legend i { display: inline-block; width: 12px; height: 12px; border-radius: 2px; margin: 0 4px 0 12px }
.pred { background: var(--pred) } .true { border: 2px solid var(--true); box-sizing: border-box }
article { background: var(--soft); border-radius: 8px; padding: 14px 16px; margin: 12px 0; scroll-margin-top: 60px }
article { content-visibility: auto; contain-intrinsic-size: auto 340px } article:target { outline: 2px solid var(--accent) }
article[hidden] { display: none } .facts { margin: 2px 0 8px; font-size: 13px } .facts b { color: var(--ink) }
.failure { color: var(--bad); font-weight: 600 } .pictures { display: flex; flex-wrap: wrap; align-items: flex-start; gap: 6px }
.pictures img { max-width: 100%; height: auto; border-radius: 4px } summary { cursor: pointer; font-size: 13px }
.thinking { white-space: pre-wrap; overflow-wrap: anywhere; margin: 8px 0 }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; font-size: 12px }
"""

CONTROLS = """<p class="legend"><i class="pred"></i>predicted mask and boxes<i class="true"></i>true outlines and boxes</p>
<div class="controls"><input id="words" type="search" placeholder="words in expression, name or answer">
<select id="type"><option value="">every type</option><option>referring</option><option>reasoning</option><option>absent</option></select>
<select id="state"><option value="">every outcome</option><option value="ok">tracked</option><option value="bad">empty</option></select>
<select id="order"><option value="worst">worst first</option><option value="best">best first</option><option value="name">by name</option>
<option value="objects">most objects first</option></select><span id="count"></span></div>"""

SCRIPT = """
const get = id => document.getElementById(id), list = get("samples"), cards = [...list.children];
const speech = card => [...card.querySelectorAll("h3, code, pre")].map(part => part.textContent).join(" ").toLowerCase();
const said = new Map(cards.map(card => [card, speech(card)]));
const orders = {
  worst: (a, b) => a.dataset.jf - b.dataset.jf, best: (a, b) => b.dataset.jf - a.dataset.jf,
  name: (a, b) => a.dataset.id.localeCompare(b.dataset.id, undefined, { numeric: true }),
  objects: (a, b) => b.dataset.objects - a.dataset.objects,
};
function filter() {
  const words = get("words").value.toLowerCase(), type = get("type").value, state = get("state").value;
  let shown = 0;
  for (const card of cards) {
    const d = card.dataset;
    card.hidden = !(said.get(card).includes(words) && (!type || d.type === type) && (!state || (state === "bad") === (d.failure !== "")));
    shown += !card.hidden;
  }
  get("count").textContent = `${shown} of ${cards.length}`;
}
function sort() {
  for (const card of cards.sort(orders[get("order").value])) list.append(card);
}
for (const id of ["words", "type", "state"]) get(id).addEventListener("input", filter);
get("order").addEventListener("input", sort);
filter();
"""


def text(value: Any) -> str:
    """A value as HTML text or as an attribute's content."""
    return escape(str(value), quote=True)


def page(title: str, subtitle: str, body: str) -> str:
    """The whole document; `title` and `subtitle` are escaped here, `body` is HTML."""
    script = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode("ascii")
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{script}'"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><title>{text(title)}</title><style>{STYLE}</style></head>'
        f"<body><h1>{text(title)}</h1><p>{text(subtitle)}</p>{body}<script>{SCRIPT}</script></body></html>\n"
    )


def section(title: str, body: str) -> str:
    return f"<section><h2>{text(title)}</h2>{body}</section>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], ours: Sequence[str] = ()) -> str:
    """Cells are HTML; the row `ours` stands out."""
    lines = [f"<tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>"]
    lines += [f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows]
    lines += [f'<tr class="ours">{"".join(f"<td>{cell}</td>" for cell in ours)}</tr>'] if ours else []
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>'


def histogram(name: str, values: Sequence[float], bins: int) -> str:
    """How many of the values, in percent, fall into each of `bins` equal parts of 0 to 100, as SVG; the number stands
    over each bar.
    """
    counts, _ = np.histogram(values, bins=bins, range=(0, 100))
    width, height, top = 22 * bins, 70, 12
    bars = []
    for number, count in enumerate(counts):
        tall, left = height * count / max(counts.max(), 1), 22 * number
        if count:
            bars.append(f'<rect x="{left + 1}" y="{top + height - tall:.1f}" width="20" height="{tall:.1f}"/>')
            bars.append(f'<text x="{left + 11}" y="{top + height - tall - 2:.1f}">{count}</text>')
    ground = f'<path d="M0 {top + height}.5H{width}"/>'
    axis = "".join(
        f'<text x="{10 + (width - 20) * end / 100:.0f}" y="{top + height + 12}">{end}</text>' for end in (0, 50, 100)
    )
    caption = f"<figcaption><b>{text(name)}</b>: {len(values)}, mean {np.mean(values):.1f}</figcaption>"
    return f'<figure>{caption}<svg width="{width}" height="{top + height + 16}">{"".join(bars)}{ground}{axis}</svg></figure>'
