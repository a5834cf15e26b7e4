
(() => {
"use strict";
const table = document.getElementById("t"), form = document.getElementById("f"), said = document.getElementById("n");
const unfold = document.getElementById("u"), first = Number(table.dataset.cases);
const rows = Array.from(table.tBodies, (body, at) => {
  const cells = body.rows[0].cells, text = `${cells[0].textContent} ${cells[1].textContent}`.toLowerCase();
  return {body, at, cells, text, result: body.dataset.r};
});
const headings = Array.from(table.querySelectorAll("th.s"));
const byName = new Intl.Collator(undefined, {numeric: true}).compare;
let sorted = "result";

function value(row, column) {
  const cell = row.cells[column], given = cell.dataset.v;
  if (given !== undefined) return Number(given);
  if (column === 0 || cell.textContent === "") return cell.textContent;
  return Number(cell.textContent);
}

function compare(one, other) {
  if (typeof one === "number" && typeof other === "number") return one - other;
  return byName(one, other);
}

function sort(heading, name) {
  const column = heading.cellIndex;
  const down = heading.getAttribute("aria-sort") === "ascending";
  for (const each of headings) each.setAttribute("aria-sort", "none");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  const keyed = rows.map(row => [value(row, column), row]);
  keyed.sort(([one, a], [other, b]) => {
    if ((one === "") !== (other === "")) return one === "" ? 1 : -1; // cells without a measurement come last, in either order
    return (down ? compare(other, one) : compare(one, other)) || a.at - b.at;
  });
  table.append(...keyed.map(([, row]) => row.body));
  sorted = name.toLowerCase() + (down ? ", descending" : "");
  tell();
}

function tell() {
  const shown = rows.filter(row => !row.body.hidden).length;
  said.textContent = `${shown} of ${rows.length} programs, by ${sorted}`;
}

function filter() {
  const words = form.elements.find.value.toLowerCase().split(/\s+/).filter(Boolean);
  const result = form.elements.result.value, chosen = form.elements.case ? form.elements.case.value : "";
  for (const row of rows) {
    const failed = chosen === "" || row.cells[first + Number(chosen)].classList.contains("x");
    const wanted = failed && (result === "" || row.result === result);
    row.body.hidden = !(wanted && words.every(word => row.text.includes(word)));
  }
  tell();
}

for (const heading of headings) {
  const button = document.createElement("button"), name = heading.textContent;
  button.type = "button";
  button.textContent = name;
  button.addEventListener("click", () => sort(heading, name));
  heading.replaceChildren(button);
  heading.setAttribute("aria-sort", name === "Result" ? "ascending" : "none");
}
form.addEventListener("input", filter);
form.addEventListener("reset", () => setTimeout(filter));
form.addEventListener("submit", event => event.preventDefault());
unfold.addEventListener("click", () => {
  const open = unfold.getAttribute("aria-pressed") !== "true";
  unfold.setAttribute("aria-pressed", String(open));
  for (const row of rows) {
    const details = row.body.hidden ? null : row.body.querySelector("details");
    if (details) details.open = open;
  }
});
table.dataset.sorted = "";
form.hidden = false;
tell();
})();
