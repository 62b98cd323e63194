"use strict";
// What all panels share: colors, axes, frames, numbers, and the CSV of a figure.

const report = JSON.parse(document.getElementById("data").textContent);
const LABELS = ["nop", "broadcast", "other"];
const LABEL_NAMES = {nop: "NOP", broadcast: "broadcast", other: "other", undefined: "undefined", events: "events"};
const SYMBOLS = {cls: "circle", register: "square", patch: "triangle-up", null: "x", kv_bias: "diamond", bos: "circle", sep: "square", punctuation: "triangle-down", word: "triangle-up"};
const LIGHTER = {"#0072B2": "#4aa5de", "#555555": "#a9b1b9", "#8B4513": "#cf9163", "#999999": "#a9b1b9", "#009E73": "#24bd90", "#D55E00": "#f08035"};
// The same colors on a dark ground, where the originals have too little contrast.

const darkScheme = matchMedia("(prefers-color-scheme: dark)");
const printing = () => document.documentElement.classList.contains("printing");
const themed = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const color = original => darkScheme.matches && !printing() ? LIGHTER[original] ?? original : original;

const axis = (title, more = {}) => ({title: {text: title, standoff: 8}, gridcolor: themed("grid"), zerolinecolor: themed("line"), automargin: true, ...more});
const blockAxis = (blocks, more = {}) => axis("block", {dtick: Math.ceil(blocks.length / 13), ...(blocks.length < 2 ? {range: [blocks[0] - .5, blocks[0] + .5]} : {}), ...more});
const countTicks = most => most < 8 ? {dtick: 1} : {};  // no ticks at half a step

function logAxis(values) {  // the format is needed: by itself, plotly labels ticks between powers of ten with their first digit alone
  const known = values.filter(value => value > 0), decades = known.length ? Math.log10(Math.max(...known) / Math.min(...known)) : 0;
  return {type: "log", tickformat: "~r", ...(decades > 2 ? {dtick: 1} : decades > .9 ? {dtick: "D2"} : {nticks: 4})};
}

const SMALLEST = 1e-6;  // smaller effects are rounding noise, as in the figures

function brokenLogAxis(values) {  // a logarithmic axis on which zeros are drawn at a tick labeled 0, a decade below the smallest other value; `at` returns where a value is drawn
  const above = values.filter(value => value > SMALLEST), zeros = values.some(value => value != null && value <= SMALLEST);
  if (!above.length) return {at: value => value, options: {range: [-.05, 1]}, annotations: []};
  const first = Math.floor(Math.log10(Math.min(...above))), last = Math.max(first + 1, Math.ceil(Math.log10(Math.max(...above)))), zero = 10 ** (first - 1);
  const decades = Array.from({length: last - first + 1}, (_, i) => 10 ** (first + i));
  return {at: value => value == null ? value : Math.max(value, zero),
    options: {type: "log", tickvals: zeros ? [zero, ...decades] : decades, ticktext: [...(zeros ? ["0"] : []), ...decades.map(value => number(value, 1))], range: [zeros ? first - 1.2 : first, last + .05]},
    annotations: zeros ? [{text: "//", x: first - .5, y: 0, yref: "paper", yanchor: "middle", showarrow: false, font: {size: 14}}] : []};
}

const base = (height, more = {}) => ({height, font: {family: "system-ui, sans-serif", size: 12, color: themed("ink")}, margin: {l: 56, r: 14, t: 24, b: 78},
  hovermode: "closest", showlegend: true, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
  legend: {orientation: "h", yref: "container", y: 0, yanchor: "bottom", x: 0}, ...more});
const number = (value, digits = 3) => value == null ? "–" : Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(digits)));
const sum = values => values.reduce((a, b) => a + b, 0);
const defined = values => values !== undefined && values.some(value => value != null);
const models = () => report.runs.filter(run => !run.diagnosis_of);  // each model once
const variants = runs => [...new Set(runs.map(run => run.variant))];
const variantColor = variant => color(report.variant_colors[variants(report.runs).indexOf(variant) % report.variant_colors.length]);
const stateOf = run => run.state === "finished" ? "" : ` (${run.state})`;
const kindName = (kind, run) => kind === "register" && run ? run.register_name : report.kind_names[kind] ?? kind;
const kindsOf = run => report.kinds.filter(kind => run.blocks && defined(run.blocks[`mass_${kind}`]));
const metricTitle = name => /acc\d/.test(name) ? `${name} (share of images)` : name.endsWith("loss") ? `${name} (mean over images)` : name;
const eventsTitle = rule => `sink events per image, rule ${rule}`;

function counted(run, rule, index) {  // label counts of one head; events are the three labels together
  const counts = run.heads.counts[rule];
  const head = Object.fromEntries([...LABELS, "undefined"].map(label => [label, counts[label][index]]));
  head.events = sum(LABELS.map(label => head[label]));
  head.frequency = head.events / run.heads.images;
  head.label = head.events ? LABELS.reduce((a, b) => head[b] > head[a] ? b : a) : null;
  return head;
}

function facets(count, width, {least = 210, row = 210, titles = [], x = {}, y = {}, shared = true, gap = 60, below = 62} = {}) {
  // Axes of `count` small frames in a grid with equal rows of as many as fit; `say` writes into a frame; the first frame of each row has the title of y.
  const most = Math.max(1, Math.floor(width / least)), rows = Math.ceil(count / most), columns = Math.ceil(count / rows);
  const height = rows * row + 90, layout = {annotations: []};
  const wide = shared ? 0.03 : gap / width, high = below / (height - 80);
  for (let i = 0; i < count; i++) {
    const n = i ? i + 1 : "", c = i % columns, r = Math.floor(i / columns);
    const w = (1 - wide * (columns - 1)) / columns, h = (1 - high * (rows - 1)) / rows;
    const left = c * (w + wide), bottom = 1 - r * (h + high) - h;
    layout[`xaxis${n}`] = axis("", {...x, domain: [left, left + w], anchor: `y${n}`,
      title: {text: Array.isArray(x.title) ? x.title[i] : i + columns >= count ? x.title || "" : "", standoff: 4}});
    layout[`yaxis${n}`] = axis("", {...y, domain: [bottom, bottom + h], anchor: `x${n}`, title: {text: c ? "" : y.title || "", standoff: 6},
      ...(shared && i ? {matches: "y", showticklabels: !c} : {})});
    if (titles[i]) layout.annotations.push({text: titles[i], showarrow: false, xref: "paper", yref: "paper", x: left, xanchor: "left",
                                            y: bottom + h, yanchor: "bottom", font: {size: 12}});
  }
  const say = (i, text) => layout.annotations.push({text, showarrow: false, xref: `x${i ? i + 1 : ""} domain`, yref: `y${i ? i + 1 : ""} domain`, x: .5, y: .5, font: {color: themed("soft")}});
  return {layout: {...base(height), ...layout}, say, at: i => ({xaxis: i ? `x${i + 1}` : "x", yaxis: i ? `y${i + 1}` : "y"})};
}

function rowsOf(traces, {x, y, z}) {
  // One row per point that is drawn: the keys of its customdata, the series and frame it belongs to, and its numbers.
  const rows = [];
  for (const trace of traces) {
    if (trace.hoverinfo === "skip") continue;  // a mark for what is chosen, or an entry of the legend
    const grid = trace.z !== undefined;
    const points = grid ? trace.z.flatMap((line, r) => line.map((value, c) => [trace.x[c], trace.y[r], trace.customdata[r][c], {[z]: value}]))
                        : trace.x.map((value, i) => [value, trace.y[i], trace.customdata?.[i], {}]);
    for (const [px, py, custom, color] of points)
      rows.push({...custom, ...(trace.meta ?? {}), ...(grid || !trace.name ? {} : {series: trace.name}), [x]: custom?.[x] ?? px, [y]: py, ...color});  // a value that the axis cannot show is in the customdata
  }
  return rows;
}

function csv(rows) {
  const columns = [...new Set(rows.flatMap(Object.keys))];
  const cell = value => value == null ? "" : /[",\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : String(value);
  return [columns, ...rows.map(row => columns.map(name => row[name]))].map(line => line.map(cell).join(",")).join("\n") + "\n";
}

function offerCsv(id, rows, name) {  // the link of a panel downloads the numbers that the panel shows
  const link = document.getElementById(`${id}-csv`);
  link.hidden = !rows.length;
  if (link.href) URL.revokeObjectURL(link.href);
  link.href = URL.createObjectURL(new Blob([csv(rows)], {type: "text/csv"}));
  link.download = `${name.replace(/[^\w.=-]+/g, "_")}.csv`;
}
