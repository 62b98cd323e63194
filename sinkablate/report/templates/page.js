"use strict";
// The page: what is chosen, the controls, the address, and drawing what is in sight.

const get = id => document.getElementById(id);
const state = {run: null, rule: "", block: null, head: null, metric: "", value: "", image: null};
const FIELDS = {run: String, rule: String, block: Number, head: Number, metric: String, value: String, image: Number};
const DEPENDS = {scatter: ["run", "rule", "metric"], quality: ["rule"], labels: ["rule"], ablation: [], effects: [], norms: ["run"], stability: [],
  handoff: ["run", "rule", "block"], frequency: ["run", "rule", "block", "head"], atlas: ["run", "rule", "block", "head", "value"], formation: ["run", "rule", "block", "head"],
  sensitivity: ["run", "rule"], edits: ["run"], token_maps: ["run", "block", "image"], maps: ["run", "block", "head"]};
const present = Object.keys(DEPENDS).filter(id => get(`${id}-plot`));
const dirty = new Set(), visible = new Set();
const spoil = id => { dirty.add(id); get(`${id}-plot`).dataset.stale = ""; };  // draw it when it is in sight

function element(tag, text, more = {}) {
  const made = Object.assign(document.createElement(tag), more);
  if (text != null) made.textContent = text;
  return made;
}

const placeOf = () => state.run.heads ? state.run.heads.block.findIndex((b, p) => b === state.block && state.run.heads.head[p] === state.head) : -1;

function busiest(run, rule) {  // the head with the most events, then with the most mass
  const {block, head, quantities} = run.heads, deep = block.some(b => b > 0);  // block 0 does not count, where there are others
  const score = p => (deep && !block[p] ? 0 : counted(run, rule, p).events * 1e3) + (quantities.median_mass[p] ?? 0);
  const best = block.reduce((a, _, p) => score(p) > score(a) ? p : a, 0);
  return {block: block[best], head: head[best]};
}

function choose(changes) {
  const before = {...state};
  if (typeof changes.run === "string") changes = {...changes, run: report.runs.find(run => run.name === changes.run)};
  Object.assign(state, changes);
  const heads = state.run.heads, rules = Object.keys(heads ? heads.counts : state.run.labels_by_step);
  if (rules.length && !rules.includes(state.rule)) state.rule = rules[0];
  if (!heads) Object.assign(state, {block: null, head: null});
  else if (placeOf() < 0) Object.assign(state, heads.block.includes(state.block) && before.run === state.run
    ? {head: heads.head[heads.block.indexOf(state.block)]} : busiest(state.run, state.rule));
  const pictured = state.run.token_maps;
  state.image = pictured ? (state.image in pictured.names ? state.image : 0) : null;
  controls(heads, rules);
  const changed = Object.keys(state).filter(key => state[key] !== before[key]);
  for (const id of present) if (DEPENDS[id].some(key => changed.includes(key))) spoil(id);
  if (changed.length) { card(); runsTable(); writeAddress(); }
  draw();
}

function controls(heads, rules) {
  const groups = variants(report.runs).map(variant => [variant, report.runs.filter(run => run.variant === variant).map(run => [run.name, run.name + stateOf(run)])]);
  fill(get("run"), groups.length < 2 || groups.length === report.runs.length ? groups.flatMap(([, runs]) => runs) : groups, state.run.name);
  fill(get("rule"), rules.map(rule => [rule, rule]), state.rule);
  get("rule").title = report.rules[state.rule] ?? "";
  fill(get("block"), heads ? [...new Set(heads.block)].map(b => [b, b]) : [], state.block);
  fill(get("head"), heads ? heads.head.filter((_, p) => heads.block[p] === state.block).map(h => [h, h]) : [], state.head);
  fill(get("value"), state.run.atlas ? Object.entries(report.values) : [], state.value);
  fill(get("metric"), report.metrics.map(name => [name, name]), state.metric);
  fill(get("image"), (state.run.token_maps?.names ?? []).map((name, i) => [i, name]), state.image);
  for (const name of document.querySelectorAll(".chosen-run")) name.textContent = state.run.name;
}

function fill(select, options, value) {  // options are [value, text], or [label of a group, options]
  const key = JSON.stringify(options), option = ([v, text]) => element("option", text, {value: v});
  if (select.dataset.options !== key) {
    select.replaceChildren(...options.map(entry => {
      if (!Array.isArray(entry[1])) return option(entry);
      const group = element("optgroup", null, {label: entry[0]});
      group.append(...entry[1].map(option));
      return group;
    }));
    select.dataset.options = key;
  }
  select.value = value;
  select.parentElement.hidden = !options.length;
}

function writeAddress() {
  const chosen = {...state, run: state.run.name};
  const pairs = Object.keys(FIELDS).filter(key => chosen[key] !== null && chosen[key] !== "").map(key => [key, chosen[key]]);
  history.replaceState(null, "", `#${new URLSearchParams(pairs)}`);
}

function readAddress() {  // what the fragment of the address chooses; what this report does not contain is named and ignored
  const given = new URLSearchParams(location.hash.slice(1)), changes = {};
  for (const [key, read] of Object.entries(FIELDS)) if (given.has(key)) changes[key] = read(given.get(key));
  const run = report.runs.find(one => one.name === (changes.run ?? (state.run?.name || report.start.run))), unknown = [];
  const drop = key => { unknown.push(`${key}=${given.get(key)}`); delete changes[key]; };
  if (!run) drop("run");
  if ("metric" in changes && !report.metrics.includes(changes.metric)) drop("metric");
  if ("value" in changes && !(changes.value in report.values)) drop("value");
  if (run && "rule" in changes && run.heads && !(changes.rule in run.heads.counts)) drop("rule");
  if ("image" in changes && !(changes.image in (run?.token_maps?.names ?? []))) drop("image");
  const heads = run?.heads;
  if (heads && ("block" in changes || "head" in changes) && !heads.block.some((b, p) => b === changes.block && heads.head[p] === changes.head))
    for (const key of ["block", "head"]) if (key in changes) drop(key);
  get("status").textContent = unknown.length ? `The link names ${unknown.join(", ")}, which this report does not contain.` : "";
  return changes;
}

function draw(all = false) {
  for (const id of present) if (dirty.has(id) && (all || visible.has(id))) {
    dirty.delete(id);
    id === "maps" ? gallery() : plot(id);
    delete get(`${id}-plot`).dataset.stale;
  }
}

function plot(id) {
  const box = get(`${id}-plot`), made = PANELS[id](state, box.clientWidth);
  if (made.missing) {
    if (box.data) Plotly.purge(box);
    offerCsv(id, [], id);
    return box.replaceChildren(element("p", made.missing, {className: "missing"}));
  }
  if (!box.data) box.replaceChildren();
  const fresh = !box.data;
  Plotly.react(box, made.traces, {...made.layout, width: box.clientWidth}, {displaylogo: false, displayModeBar: false, responsive: true});
  offerCsv(id, rowsOf(made.traces, made.csv), DEPENDS[id].includes("run") && id !== "scatter" && id !== "norms" ? `${id}-${state.run.name}` : id);
  if (fresh) box.on("plotly_click", event => click(event.points[0], get(id)));
}

function click(point, section) {
  const {run, block, head} = point.customdata ?? {}, changes = Object.entries({run, block, head}).filter(([, value]) => value != null);
  if (!changes.length) return;
  choose(Object.fromEntries(changes));
  if (matchMedia("(max-width: 1000px)").matches && head != null) section.after(get("card"));
}

function contents() {  // links to the panels, by group
  get("contents").replaceChildren(...["all-runs", "chosen-run"].map(id => {
    const group = element("span"), title = get(id);
    const links = [...title.nextElementSibling.querySelectorAll("section h3")].map(h => element("a", h.textContent.split(/[:,]/)[0], {href: `#${h.closest("section").id}`}));
    group.append(element("b", id === "all-runs" ? "All runs" : "The chosen run"), ...links);
    return group;
  }));
}

function redraw(all = printing()) {  // on paper, everything is in sight
  present.forEach(spoil);
  draw(all);
}

let closed = [];
addEventListener("beforeprint", () => {  // everything, as wide as the paper
  closed = [...document.querySelectorAll("details:not([open])")];
  closed.forEach(details => { details.open = true; });
  document.documentElement.classList.add("printing");
  redraw();
});
addEventListener("afterprint", () => {
  document.documentElement.classList.remove("printing");
  closed.forEach(details => { details.open = false; });
  redraw();
});
darkScheme.addEventListener("change", () => redraw());  // a browser may switch to light while it prints
addEventListener("hashchange", () => {  // a shared link in the same tab, or a link to a panel
  if (location.hash.includes("=")) choose(readAddress());
  writeAddress();
});
for (const [id, read] of Object.entries(FIELDS)) get(id).addEventListener("change", event => choose({[id]: read(event.target.value)}));
const sight = new IntersectionObserver(entries => {
  for (const entry of entries) visible[entry.isIntersecting ? "add" : "delete"](entry.target.id.replace("-plot", ""));
  draw();
  document.documentElement.dataset.ready = "true";
}, {rootMargin: "200px"});
present.forEach(spoil);
contents();
if (get("quality-table")) offerCsv("quality-table", report.quality_table, "quality-table");
choose({...report.start, ...readAddress()});
present.forEach(id => sight.observe(get(`${id}-plot`)));
let resized, wide = innerWidth;
addEventListener("resize", () => { clearTimeout(resized);
  resized = setTimeout(() => { if (innerWidth === wide || printing()) return; wide = innerWidth; redraw(); }, 200); });
