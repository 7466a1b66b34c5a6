"use strict";
// Filters and sorts the samples.
const get = (id) => document.getElementById(id);
const list = get("samples");
const cards = [...list.children];
const searchable = new Map(cards.map((card) => {
  const parts = [...card.querySelectorAll("h3, code, pre")];
  return [card, parts.map((part) => part.textContent).join(" ").toLowerCase()];
}));
const orders = {
  worst: (a, b) => a.dataset.jf - b.dataset.jf,
  best: (a, b) => b.dataset.jf - a.dataset.jf,
  name: (a, b) => a.dataset.id.localeCompare(b.dataset.id, undefined, { numeric: true }),
  objects: (a, b) => b.dataset.objects - a.dataset.objects,
};

function filter() {
  const text = get("search").value.toLowerCase();
  const type = get("type").value;
  const outcome = get("outcome").value;
  let shown = 0;
  for (const card of cards) {
    const { type: cardType, failure } = card.dataset;
    const matches = searchable.get(card).includes(text) && (!type || cardType === type)
      && (!outcome || (outcome === "empty") === (failure !== ""));
    card.hidden = !matches;
    shown += matches;
  }
  get("count").textContent = `${shown} of ${cards.length}`;
}

function sort() {
  for (const card of cards.sort(orders[get("order").value])) list.append(card);
}

for (const id of ["search", "type", "outcome"]) get(id).addEventListener("input", filter);
get("order").addEventListener("input", sort);
filter();
