// Sorts a table after a click on a column header, and adds a search field for shelves. The page is complete without
// this script.
"use strict";

function sortKey(row, column) {
  const text = row.cells[column].textContent.trim().replace("\u2212", "-");
  const value = parseFloat(text);
  return Number.isNaN(value) ? { text } : { text, value };
}

// Splits a text at its numbers. The pattern has a group, so split() keeps the numbers, at the odd indices.
const NUMBER = /(\d+(?:\.\d+)?(?:e[-+]?\d+)?)/;

function compareTexts(a, b) {
  const [left, right] = [a.split(NUMBER), b.split(NUMBER)];
  for (let place = 0; place < Math.min(left.length, right.length); place += 1) {
    const difference = place % 2 ? left[place] - right[place] : left[place].localeCompare(right[place], "en");
    if (difference) return difference;
  }
  return left.length - right.length;
}

function compare(a, b) {
  if ("value" in a && "value" in b && a.value !== b.value) return a.value - b.value;
  return compareTexts(a.text, b.text);
}

function sortBy(table, heads, column) {
  const order = heads[column].getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
  heads.forEach((head) => head.removeAttribute("aria-sort"));
  heads[column].setAttribute("aria-sort", order);
  const body = table.tBodies[0];
  const rows = Array.from(body.rows, (row) => [sortKey(row, column), row]);
  const isMissing = ([key]) => key.text === "" || key.text === "\u2013";
  rows.sort((a, b) => {
    // Missing values stay at the end in both directions.
    if (isMissing(a) || isMissing(b)) return isMissing(a) - isMissing(b);
    return order === "ascending" ? compare(a[0], b[0]) : compare(b[0], a[0]);
  });
  body.append(...rows.map(([, row]) => row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = Array.from(table.tHead.rows[0].cells);
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sortBy(table, heads, column));
    head.append(button);
  });
}

// If the search finds more shelves than this, they stay closed; their names show where to look.
const MAX_OPEN = 5;

function search(shelves, text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  let num = 0;
  for (const { shelf, blocks } of shelves) {
    for (const block of blocks) {
      block.text ??= block.element.textContent.toLowerCase();
      block.element.hidden = !words.every((word) => block.text.includes(word));
      num += !block.element.hidden;
    }
    shelf.hidden = blocks.every((block) => block.element.hidden);
  }
  const numFound = shelves.filter(({ shelf }) => !shelf.hidden).length;
  for (const { shelf } of shelves) shelf.open = words.length > 0 && numFound <= MAX_OPEN && !shelf.hidden;
  for (const section of document.querySelectorAll("main > section")) {
    section.hidden = words.length > 0 && !section.querySelector(".shelf:not([hidden])");
  }
  return num;
}

function addSearch(shelves) {
  const label = document.createElement("label");
  const input = document.createElement("input");
  const count = document.createElement("output");
  input.type = "search";
  input.placeholder = "for example cifar100 wrn rho=0.2";
  label.append("Show only tables with ", input, count);
  label.className = "search";
  input.addEventListener("input", () => {
    const num = search(shelves, input.value);
    count.textContent = input.value.trim() ? `${num} tables` : "";
  });
  document.querySelector("header").append(label);
}

const shelves = Array.from(document.querySelectorAll("details.shelf"), (shelf) => ({
  shelf,
  blocks: Array.from(shelf.querySelectorAll(":scope > .block"), (element) => ({ element })),
}));
if (shelves.length) addSearch(shelves);
