"use strict";
// The card of the chosen head, and the attention maps.

function tile(run, entry, index, brief) {
  const maps = run.maps, image = entry.images[index];
  const figure = element("figure"), button = element("button", null, {type: "button"}), caption = element("figcaption");
  button.setAttribute("aria-label", `Choose block ${entry.block}, head ${entry.head} (image ${maps.names[index]})`);
  if (maps.pictures.length) button.append(element("img", null, {src: report.pictures[maps.pictures[index]], alt: `image ${maps.names[index]}`}));
  button.append(element("img", null, {src: image.map, alt: "attention that each patch receives", className: maps.grid[0] === 1 ? "strip" : ""}));
  button.onclick = () => choose({block: entry.block, head: entry.head});
  const others = Object.entries(image.shares).filter(([kind]) => kind !== "patch").map(([kind, share]) => `all ${kindName(kind, run)} ${number(share)}`);
  const [column, kind, share] = image.strongest, lines = [`largest patch ${number(image.peak)}`];
  if (!brief) lines.push(...others, `strongest column: ${kindName(kind, run)} (number ${column}), ${number(share)}`);
  caption.append(element("b", maps.names[index]), element("br"), lines.join("; "));
  figure.append(button, caption);
  return figure;
}

function gallery() {
  const box = get("maps-plot"), run = state.run, maps = run.maps;
  if (!maps) return box.replaceChildren(element("p", `There are no maps of ${run.name}: they need its checkpoint and its data (--maps N).`, {className: "missing"}));
  box.replaceChildren(...maps.heads.flatMap(entry => {
    const tiles = element("div", null, {className: "tiles"}), mine = entry.block === state.block && entry.head === state.head;
    tiles.append(...entry.images.map((_, i) => tile(run, entry, i)));
    if (mine) tiles.querySelectorAll("figure").forEach(figure => figure.classList.add("chosen"));
    return [element("h4", `Block ${entry.block}, head ${entry.head}${mine ? " (chosen)" : ""}`), tiles];
  }));
  offerCsv("maps", maps.heads.flatMap(entry => entry.images.map((image, i) => ({run: run.name, block: entry.block, head: entry.head, image: maps.names[i], "largest patch": image.peak,
    ...image.shares, "strongest column": image.strongest[0], "its type": image.strongest[1], "its share": image.strongest[2]}))), `maps-${run.name}`);
}

function images(run, index) {  // of the chosen head
  const entry = run.maps?.heads.find(one => one.block === state.block && one.head === state.head), best = run.busiest_images;
  const tiles = element("div", null, {className: "tiles"}), parts = [element("h3", "Images"), tiles];
  if (entry) tiles.append(...entry.images.map((_, i) => tile(run, entry, i, true)));
  else tiles.textContent = run.maps ? `Maps exist for the heads ${run.maps.heads.map(one => `${one.block}:${one.head}`).join(", ")} (block:head), the busiest by rule ${run.maps.rule}.` : "There are no maps of this run.";
  if (best) parts.push(element("p", "Most mass on one column: " + best.indices[index].map((i, k) => `${best.names[i]} (${number(best.mass[index][k])})`).join(", "), {className: "fine"}));
  return parts;
}

function card() {
  const box = get("card"), run = state.run, index = placeOf();
  box.replaceChildren(element("h2", state.block == null ? run.name : `Block ${state.block}, head ${state.head}`),
    element("div", `${run.name}${stateOf(run)}${run.step == null ? "" : `, step ${run.step}`}`));
  if (index < 0) return box.append(element("p", "This run has no table of heads.", {className: "missing"}));
  const counts = counted(run, state.rule, index), kind = report.kinds[run.heads.token_type[index]];
  const rows = [[`events, rule ${state.rule}`, `${counts.events} of ${run.heads.images}`], ["NOP / broadcast / other", `${counts.nop} / ${counts.broadcast} / ${counts.other}`],
    ["undefined", counts.undefined], [counts.events ? "type of the sink token" : "type of the dominant column", kind ? kindName(kind, run) : "–"],
    ...Object.entries(run.heads.quantities).map(([name, values]) => [report.quantities[name], number(values[index])])];
  const table = element("table");
  for (const [name, value] of rows) { const row = table.insertRow(); row.append(element("th", name, {scope: "row"}), element("td", value)); }
  box.append(...images(run, index), element("h3", "Numbers (medians over images)"), table);
}
