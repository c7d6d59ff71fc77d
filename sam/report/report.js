// Lets a table be sorted by a click on the head of a column. Without this script the tables stay as they are.
"use strict";

function sortKey(row, column) {
  const text = row.cells[column].textContent.trim().replace("\u2212", "-");
  const value = parseFloat(text);
  return Number.isNaN(value) ? { text } : { text, value };
}

// Splits at numbers; since the pattern has a group, those stay, at the odd places.
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
    // What is missing stays below in both directions.
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
