"use strict";
// The page: what is chosen, the controls, the card of the chosen head, and drawing what is in sight.

const report = JSON.parse(document.getElementById("data").textContent);
const get = id => document.getElementById(id);
const state = {run: null, rule: "", block: null, head: null, metric: ""};
const DEPENDS = {handoff: ["run", "rule", "block"], frequency: ["run", "rule", "block", "head"], atlas: ["run", "rule", "block", "head"],
  norms: ["run"], formation: ["run", "rule", "block", "head"], scatter: ["run", "rule", "metric"], ablation: [], effects: [],
  labels: ["rule"], stability: [], sensitivity: ["run", "rule"], maps: ["run", "block", "head"]};
const present = Object.keys(DEPENDS).filter(id => get(`${id}-plot`));
const dirty = new Set(), visible = new Set();
const spoil = id => { dirty.add(id); get(`${id}-plot`).dataset.stale = ""; };  // to be drawn when it is in sight
present.forEach(spoil);

function element(tag, text, more = {}) {
  const made = Object.assign(document.createElement(tag), more);
  if (text != null) made.textContent = text;
  return made;
}

const placeOf = () => state.run.heads ? state.run.heads.block.findIndex((b, p) => b === state.block && state.run.heads.head[p] === state.head) : -1;

function busiest(run, rule) {  // the head with most events, then with most mass
  const {block, head, quantities} = run.heads, score = p => counted(run, rule, p).events * 1e3 + (quantities.median_mass[p] ?? 0);
  const best = block.reduce((a, _, p) => score(p) > score(a) ? p : a, 0);
  return {block: block[best], head: head[best]};
}

function choose(changes) {
  const before = {...state};
  if (typeof changes.run === "string") changes = {...changes, run: report.runs.find(run => run.name === changes.run)};
  Object.assign(state, changes);
  const heads = state.run.heads, rules = Object.keys(heads ? heads.counts : state.run.labels_by_step);
  if (rules.length && !rules.includes(state.rule)) state.rule = rules.includes("causal") ? "causal" : rules[0];
  if (heads && placeOf() < 0) Object.assign(state, heads.block.includes(state.block) && before.run === state.run
    ? {head: heads.head[heads.block.indexOf(state.block)]} : busiest(state.run, state.rule));
  fill(get("run"), report.runs.map(run => [run.name, run.name + unended(run)]), state.run.name);
  fill(get("rule"), rules.map(rule => [rule, rule]), state.rule);
  fill(get("block"), heads ? [...new Set(heads.block)].map(b => [b, b]) : [], state.block);
  fill(get("head"), heads ? heads.head.filter((_, p) => heads.block[p] === state.block).map(h => [h, h]) : [], state.head);
  fill(get("metric"), report.metrics.map(name => [name, name]), state.metric);
  const changed = Object.keys(state).filter(key => state[key] !== before[key]);
  for (const id of present) if (DEPENDS[id].some(key => changed.includes(key))) spoil(id);
  if (changed.length) card();
  draw();
}

function fill(select, options, value) {
  const key = JSON.stringify(options);
  if (select.dataset.options !== key) {
    select.replaceChildren(...options.map(([v, text]) => element("option", text, {value: v})));
    select.dataset.options = key;
  }
  select.value = value;
  select.disabled = options.length < 1;
}

function draw() {
  for (const id of present) if (dirty.has(id) && visible.has(id)) {
    dirty.delete(id);
    id === "maps" ? gallery() : plot(id);
    delete get(`${id}-plot`).dataset.stale;
  }
}

function plot(id) {
  const box = get(`${id}-plot`), made = PANELS[id](report, state, box.clientWidth);
  if (made.missing) {
    if (box.data) Plotly.purge(box);
    return box.replaceChildren(element("p", made.missing, {className: "missing"}));
  }
  if (!box.data) box.replaceChildren();
  const fresh = !box.data;
  Plotly.react(box, made.traces, made.layout, {displaylogo: false, displayModeBar: false, responsive: true});
  if (fresh) box.on("plotly_click", event => click(event.points[0], get(id)));
}

function click(point, section) {
  const chosen = point.customdata;
  if (!chosen || typeof chosen !== "object") return;
  choose(chosen);
  if (matchMedia("(max-width: 1000px)").matches && "head" in chosen) section.after(get("card"));
}

function tile(maps, entry, index, brief) {
  const figure = element("figure"), button = element("button", null, {type: "button"}), image = entry.images[index];
  const caption = element("figcaption"), strip = maps.grid[0] === 1;
  button.setAttribute("aria-label", `block ${entry.block}, head ${entry.head}, ${maps.names[index]}`);
  if (maps.pictures.length) button.append(element("img", null, {src: report.pictures[maps.pictures[index]], alt: maps.names[index]}));
  button.append(element("img", null, {src: image.map, alt: "attention received", className: strip ? "strip" : ""}));
  button.onclick = () => choose({block: entry.block, head: entry.head});
  const rest = Object.entries(image.shares).map(([kind, share]) => `${kind} ${number(share)}`).join(", ");
  caption.append(element("b", maps.names[index]), element("br"), brief ? `largest ${number(image.peak)}` : `largest ${number(image.peak)} a patch; ${rest}; strongest: ${image.strongest[1]}, column ${image.strongest[0]}, ${number(image.strongest[2])}`);
  figure.append(button, caption);
  return figure;
}

function gallery() {
  const box = get("maps-plot"), maps = state.run.maps;
  if (!maps) return box.replaceChildren(element("p", `No maps of ${state.run.name} are here (a run needs a checkpoint and its data; --maps N).`, {className: "missing"}));
  box.replaceChildren(...maps.heads.flatMap(entry => {
    const tiles = element("div", null, {className: "tiles"}), mine = entry.block === state.block && entry.head === state.head;
    tiles.append(...entry.images.map((_, i) => tile(maps, entry, i)));
    if (mine) tiles.querySelectorAll("figure").forEach(figure => figure.classList.add("chosen"));
    return [element("h3", `block ${entry.block}, head ${entry.head}${mine ? " (chosen)" : ""}`), tiles];
  }));
}

function card() {
  const box = get("card"), run = state.run, place = placeOf();
  box.replaceChildren(element("h2", `Block ${state.block}, head ${state.head}`), element("div", `${run.name}${unended(run)}${run.step == null ? "" : `, step ${run.step}`}`));
  if (place < 0) return box.append(element("p", "This run holds no such head.", {className: "missing"}));
  const entry = run.maps && run.maps.heads.find(one => one.block === state.block && one.head === state.head), best = run.busiest_images;
  const tiles = element("div", null, {className: "tiles"});
  if (entry) tiles.append(...entry.images.map((_, i) => tile(run.maps, entry, i, true)));
  else tiles.textContent = run.maps ? "Maps were made of the heads " + run.maps.heads.map(one => `${one.block}:${one.head}`).join(", ") + " (block:head)." : "No maps of this run are here.";
  box.append(element("h3", "Images"), tiles);
  if (best) box.append(element("p", "Most mass on one column: " + best.places[place].map((i, k) => `${best.names[i]} (${number(best.mass[place][k])})`).join(", "), {className: "fine"}));
  const counts = counted(run, state.rule, place), rows = [[`events, rule ${state.rule}`, `${counts.events} of ${run.heads.images}`],
    ["NOP / broadcast / other", `${counts.nop} / ${counts.broadcast} / ${counts.other}`], ["undefined", counts.undefined],
    ["sink's token type", report.kinds[run.heads.token_type[place]] ?? "–"],
    ...Object.entries(run.heads.quantities).map(([name, values]) => [report.quantities[name], number(values[place])])];
  const table = element("table");
  for (const [name, value] of rows) { const row = table.insertRow(); row.append(element("th", name, {scope: "row"}), element("td", value)); }
  box.append(element("h3", "Numbers (medians over images)"), table);
}

for (const [id, read] of Object.entries({run: String, rule: String, block: Number, head: Number, metric: String}))
  get(id).addEventListener("change", event => choose({[id]: read(event.target.value)}));
const sight = new IntersectionObserver(entries => {
  for (const entry of entries) visible[entry.isIntersecting ? "add" : "delete"](entry.target.id.replace("-plot", ""));
  draw();
  document.documentElement.dataset.ready = "true";
}, {rootMargin: "200px"});
choose({run: report.runs.find(run => run.name === report.start.run), rule: report.start.rule, metric: report.start.metric});
present.forEach(id => sight.observe(get(`${id}-plot`)));
let resized;
let wide = innerWidth;
addEventListener("resize", () => { clearTimeout(resized); if (innerWidth === wide) return;
  resized = setTimeout(() => { wide = innerWidth; ["norms", "labels", "stability", "sensitivity"].forEach(id => present.includes(id) && spoil(id)); draw(); }, 200); });
