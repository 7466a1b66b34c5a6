"""The report's frame: layout, style, and the one script that filters and sorts. Callers hand in HTML that is escaped already."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape

import numpy as np

STYLE = """
:root { color-scheme: light dark; --ink: #1c2128; --ground: #fff; --soft: #f2f4f7; --line: #d5dae1; --accent: #2a6fdb; --bad: #c2334d }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e3e6ea; --ground: #15181c; --soft: #1e2329; --line: #353c45; --accent: #7fb0ff; --bad: #ff8095 }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); max-width: 1100px; margin: 0 auto }
body { padding: 0 16px 64px } h1 { margin-bottom: 0 } h2 { margin-top: 40px; border-bottom: 1px solid var(--line) } h3 { margin: 0 }
.scroll { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums } a { color: var(--accent) }
td, th { padding: 4px 12px 4px 0; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top }
.ours td { font-weight: 600 } .columns, .controls { display: flex; flex-wrap: wrap; gap: 16px } .columns > div { flex: 1 1 300px }
figure { margin: 0 16px 8px 0; display: inline-block } rect { fill: var(--accent) } svg text { font-size: 10px; fill: var(--ink) }
figcaption { font-size: 13px } .controls { position: sticky; top: 0; background: var(--ground); padding: 8px 0; align-items: center }
input, select { font: inherit; padding: 3px 6px; color: inherit; background: var(--soft) }
input, select { border: 1px solid var(--line); border-radius: 4px } #words { flex: 1 1 260px }
article { background: var(--soft); border-radius: 8px; padding: 14px 16px; margin: 12px 0; scroll-margin-top: 60px }
article[hidden] { display: none } .facts { margin: 2px 0 8px; font-size: 13px } .failure { color: var(--bad); font-weight: 600 }
.pictures { display: flex; flex-direction: column; gap: 6px }
.pictures img { max-width: 100%; align-self: flex-start; border-radius: 4px }
.thinking { white-space: pre-wrap; margin: 8px 0 } pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; font-size: 12px }
"""

CONTROLS = """<div class="controls"><input id="words" type="search" placeholder="words in expression or answer">
<select id="type"><option value="">every type</option><option>referring</option><option>reasoning</option><option>absent</option></select>
<select id="state"><option value="">every outcome</option><option value="ok">tracked</option><option value="bad">empty</option></select>
<select id="order"><option value="worst">worst first</option><option value="best">best first</option><option value="name">by name</option>
<option value="objects">most objects first</option></select><span id="count"></span></div>"""

SCRIPT = """
const get = id => document.getElementById(id), list = get("samples"), cards = [...list.children];
const orders = {
  worst: (a, b) => a.dataset.jf - b.dataset.jf, best: (a, b) => b.dataset.jf - a.dataset.jf,
  name: (a, b) => a.dataset.id.localeCompare(b.dataset.id), objects: (a, b) => b.dataset.objects - a.dataset.objects,
};
function show() {
  const words = get("words").value.toLowerCase(), type = get("type").value, state = get("state").value;
  let shown = 0;
  for (const card of cards) {
    const d = card.dataset;
    card.hidden = !(d.words.includes(words) && (!type || d.type === type) && (!state || (state === "bad") === (d.failure !== "")));
    shown += !card.hidden;
  }
  get("count").textContent = `${shown} of ${cards.length}`;
  list.append(...cards.sort(orders[get("order").value]));
}
for (const id of ["words", "type", "state", "order"]) get(id).addEventListener("input", show);
show();
"""


def page(title: str, subtitle: str, body: str) -> str:
    """The whole document; `title` and `subtitle` are escaped here, `body` is HTML."""
    script = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode("ascii")
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{script}'"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><title>{escape(title)}</title><style>{STYLE}</style></head>'
        f"<body><h1>{escape(title)}</h1><p>{escape(subtitle)}</p>{body}<script>{SCRIPT}</script></body></html>\n"
    )


def section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], ours: Sequence[str] = ()) -> str:
    """Cells are HTML; the row `ours` stands out."""
    lines = [f"<tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>"]
    lines += [f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows]
    lines += [f'<tr class="ours">{"".join(f"<td>{cell}</td>" for cell in ours)}</tr>'] if ours else []
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>'


def histogram(name: str, values: Sequence[float], bins: int) -> str:
    """How many of the values, in percent, fall into each of `bins` equal parts of 0 to 100, as SVG."""
    counts, _ = np.histogram(values, bins=bins, range=(0, 100))
    width, height = 20 * bins, 70
    bars = []
    for number, count in enumerate(counts):
        tall = height * count / max(counts.max(), 1)
        bars.append(f'<rect x="{20 * number + 1}" y="{height - tall:.1f}" width="18" height="{tall:.1f}"><title>{count}</title></rect>')
    axis = f'<text x="0" y="{height + 12}">0</text><text x="{width - 18}" y="{height + 12}">100</text>'
    caption = f"<figcaption>{escape(name)}: {len(values)}, mean {np.mean(values):.1f}</figcaption>"
    return f'<figure><svg width="{width}" height="{height + 16}">{"".join(bars)}{axis}</svg>{caption}</figure>'
