"use strict";
// The table of all runs: sorted by a click on the head of a column; a click on a name chooses the run.

const order = {column: null, descending: false};

function runRows({rule, metric}) {
  const events = (run, name) => run.heads?.sinks[rule] ? run.heads.sinks[rule][name] : null;
  return report.runs.map(run => ({run: run.name, variant: run.variant, seed: run.seed, state: run.state, steps: run.steps, ...(metric ? {[metric]: run.metrics[metric] ?? null} : {}),
    events: events(run, "events"), NOP: events(run, "nop"), broadcast: events(run, "broadcast"), other: events(run, "other"), undefined: events(run, "undefined")}));
}

function sorted(rows) {
  if (order.column === null) return rows;
  const value = row => row[order.column], sign = order.descending ? -1 : 1;
  const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", {numeric: true});
  return [...rows].sort((a, b) => value(a) == null ? 1 : value(b) == null ? -1 : sign * compare(value(a), value(b)));
}

function runsTable() {
  const table = document.getElementById("runs-table"), rows = sorted(runRows(state)), columns = Object.keys(rows[0]).filter(name => name !== "undefined" || rows.some(row => row.undefined)), texts = ["run", "variant", "seed", "state"];
  const focused = table.contains(document.activeElement) ? document.activeElement.textContent : null;
  const head = element("tr"), body = element("tbody");
  for (const name of columns) {
    const cell = element("th", null, {scope: "col", className: texts.includes(name) ? "name" : ""}), button = element("button", name, {type: "button"});
    button.onclick = () => { Object.assign(order, {column: name, descending: order.column === name && !order.descending}); runsTable(); };
    if (order.column === name) cell.setAttribute("aria-sort", order.descending ? "descending" : "ascending");
    cell.append(button);
    head.append(cell);
  }
  for (const row of rows) {
    const line = body.insertRow();
    if (row.run === state.run.name) line.setAttribute("aria-current", "true");
    for (const name of columns) {
      const cell = element("td", null, {className: texts.includes(name) ? "name" : ""}), text = texts.includes(name) ? row[name] || "–" : number(row[name], 4);
      cell.append(name === "run" ? element("button", text, {type: "button", onclick: () => choose({run: row.run})}) : text);
      line.append(cell);
    }
  }
  const header = element("thead");
  header.append(head);
  table.replaceChildren(header, body);
  if (focused) [...table.querySelectorAll("button")].find(button => button.textContent === focused)?.focus();
  offerCsv("runs", rows, `runs-${state.rule}`);
}
