"use strict";
// Filters and sorts the articles, and opens pictures large.
const get = (id) => document.getElementById(id);
const list = get("items");
const cards = list ? [...list.children] : [];
const texts = new Map(cards.map((card) => {
  const parts = [...card.querySelectorAll("h3, code, pre")];
  return [card, parts.map((part) => part.textContent).join(" ").toLowerCase()];
}));
const filters = [...document.querySelectorAll("select[data-filter]")];

function filter() {
  const text = get("search").value.toLowerCase();
  let shown = 0;
  for (const card of cards) {
    const fits = filters.every((select) => !select.value || card.dataset[select.dataset.filter] === select.value);
    card.hidden = !(fits && texts.get(card).includes(text));
    shown += !card.hidden;
  }
  get("count").textContent = `${shown} of ${cards.length}`;
}

function sort() {
  const [, sign, key] = get("order").value.match(/^(-?)(.+)$/);
  const compare = key === "id"
    ? (a, b) => a.dataset.id.localeCompare(b.dataset.id, undefined, { numeric: true })
    : (a, b) => a.dataset[key] - b.dataset[key];
  const ordered = cards.sort((a, b) => (sign ? -1 : 1) * compare(a, b));
  for (const card of ordered) list.append(card);
}

if (list) {
  for (const control of [get("search"), ...filters]) control.addEventListener("input", filter);
  get("order").addEventListener("input", sort);
  filter();
}

const viewer = get("viewer");
document.addEventListener("click", (event) => {
  const picture = event.target.closest(".picture");
  if (picture) {
    const image = picture.querySelector("img");
    get("large").src = image.src;
    get("large").alt = image.alt;
    viewer.showModal();
  } else if (viewer.open) {
    viewer.close();
  }
});
