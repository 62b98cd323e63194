"use strict";
// One function a panel: (report, state, width) -> {traces, layout}, or {missing: text}. Nothing here touches the page.

const LABELS = ["nop", "broadcast", "other"];
const LABEL_NAMES = {nop: "NOP", broadcast: "broadcast", other: "other", undefined: "undefined"};
const SYMBOLS = {cls: "circle", register: "square", patch: "triangle-up", null: "x", kv_bias: "diamond"};
const FONT = {family: "system-ui, sans-serif", size: 12, color: "#1d2329"};
const GRID = "#e8ecf0";

const axis = (title, more = {}) => ({title: {text: title, standoff: 8}, gridcolor: GRID, zerolinecolor: "#c8d0d8", automargin: true,
                                     ...more});
const base = (height, more = {}) => ({height, font: FONT, margin: {l: 56, r: 14, t: 24, b: 78}, hovermode: "closest",
  paper_bgcolor: "#fff", plot_bgcolor: "#fff", legend: {orientation: "h", yref: "container", y: 0, yanchor: "bottom", x: 0}, ...more});
const number = (value, digits = 3) => value == null ? "–" : Number.isInteger(value) ? String(value)
  : String(Number(value.toPrecision(digits)));
const sum = values => values.reduce((a, b) => a + b, 0);
const variants = runs => [...new Set(runs.map(run => run.variant))];
const variantColor = (report, variant) => report.variant_colors[variants(report.runs).indexOf(variant) % report.variant_colors.length];
const unended = run => run.diverged ? " (diverged)" : run.finished ? "" : " (unfinished)";
const defined = values => values !== undefined && values.some(value => value != null);

function counted(run, rule, place) {  // label counts of one head; events are the three with a verdict
  const counts = run.heads.counts[rule];
  const found = Object.fromEntries([...LABELS, "undefined"].map(label => [label, counts[label][place]]));
  found.events = sum(LABELS.map(label => found[label]));
  found.frequency = found.events / run.heads.images;
  found.label = found.events ? LABELS.reduce((a, b) => found[b] > found[a] ? b : a) : null;
  return found;
}

function facets(count, width, {least = 210, row = 210, titles = [], x = {}, y = {}, shared = true, gap = 60, below = 62} = {}) {
  // Axes of so many small frames in a grid, as many a row as fit; the first of each row has the title of y.
  const columns = Math.max(1, Math.min(count, Math.floor(width / least)));
  const rows = Math.ceil(count / columns), height = rows * row + 90, layout = {annotations: []};
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
  return {layout: {...base(height), ...layout},
          at: i => ({xaxis: i ? `x${i + 1}` : "x", yaxis: i ? `y${i + 1}` : "y"})};
}

const PANELS = {
  handoff(report, {run, rule, block}) {
    const table = run.blocks;
    if (!table) return {missing: "This run holds no table of blocks."};
    const kinds = report.kinds.filter(kind => defined(table[`mass_${kind}`]));
    const line = (kind, name, values, style) => ({x: table.block, y: values, name, mode: "lines+markers", connectgaps: false,
      line: {color: report.type_colors[kind], dash: style}, marker: {symbol: SYMBOLS[kind], size: 7}, customdata: table.block.map(b => ({block: b})),
      hovertemplate: `block %{x}<br>${name}: %{y:.3f}<extra></extra>`});
    const traces = kinds.map(kind => line(kind, `${kind}, mass`, table[`mass_${kind}`], "solid"));
    for (const kind of kinds) if (defined(table[`events_${rule}_${kind}`]))
      traces.push({...line(kind, `${kind}, events`, table[`events_${rule}_${kind}`], "dot"), opacity: 0.75});
    return {traces, layout: base(340, {xaxis: axis("block", {dtick: table.block.length > 13 ? 2 : 1}), yaxis: axis("share", {range: [-0.03, 1.03]}),
      shapes: [{type: "line", x0: block, x1: block, y0: 0, y1: 1, yref: "paper", line: {color: "#98a3ae", width: 1}}]})};
  },

  frequency(report, {run, rule, block, head}) {
    const heads = run.heads;
    if (!heads) return {missing: "This run holds no table of heads."};
    const blocks = [...new Set(heads.block)], numbers = [...new Set(heads.head)];
    const grid = f => blocks.map((_, r) => numbers.map((_, c) => f(r * numbers.length + c)));
    const text = place => { const c = counted(run, rule, place);
      return `block ${heads.block[place]}, head ${heads.head[place]}<br>${c.events} events in ${heads.images} images: ` +
        `${c.nop} NOP, ${c.broadcast} broadcast, ${c.other} other<br>sink: ${report.kinds[heads.token_type[place]] ?? "–"}, mass ` +
        number(heads.quantities.median_mass[place]); };
    return {traces: [{type: "heatmap", x: numbers, y: blocks, z: grid(p => counted(run, rule, p).frequency), text: grid(text), zmin: 0, zmax: 1,
      customdata: grid(p => ({block: heads.block[p], head: heads.head[p]})), hovertemplate: "%{text}<extra></extra>", colorscale: "Viridis",
      xgap: 1, ygap: 1, colorbar: {title: {text: "share of images", side: "right"}, thickness: 12}}],
      layout: base(Math.max(240, 80 + 20 * blocks.length), {margin: {l: 56, r: 14, t: 14, b: 44}, xaxis: axis("head", {dtick: 1, showgrid: false}), yaxis: axis("block", {dtick: 1, showgrid: false}),
        shapes: [{type: "rect", x0: head - .5, x1: head + .5, y0: block - .5, y1: block + .5, line: {color: "#D55E00", width: 3}}]})};
  },

  atlas(report, {run, rule, block, head}) {
    const heads = run.heads;
    if (!heads || !heads.quantities.median_ratio_out) return {missing: "This run holds no value ratios."};
    const q = heads.quantities, groups = new Map();
    let chosen = null;
    heads.block.forEach((b, p) => {
      const c = counted(run, rule, p), kind = report.kinds[heads.token_type[p]] ?? "patch";
      const own = rule === "causal" && c.events && q.event_median_ratio_out && q.event_median_ratio_out[p] != null;
      const x = own ? q.event_median_ratio_out[p] : q.median_ratio_out[p], y = own ? q.event_median_stable_rank[p] : q.median_stable_rank[p];
      const key = `${c.label ?? "no event"}|${c.label ? kind : ""}`;
      if (!groups.has(key)) groups.set(key, {x: [], y: [], text: [], customdata: []});
      const group = groups.get(key);
      group.x.push(x); group.y.push(y); group.customdata.push({block: b, head: heads.head[p]});
      group.text.push(`block ${b}, head ${heads.head[p]}: ${c.events} events, sink on ${kind}`);
      if (b === block && heads.head[p] === head) chosen = [x, y];
    });
    const traces = [...groups].sort().map(([key, points]) => { const [label, kind] = key.split("|"), none = label === "no event";
      return {...points, mode: "markers", name: none ? "no event" : `${LABEL_NAMES[label]}, ${kind}`,
        marker: {color: none ? "#BBBBBB" : report.label_colors[label], symbol: SYMBOLS[kind] ?? "circle", size: none ? 6 : 10, opacity: .85},
        hovertemplate: "%{text}<br>value ratio %{x:.3f}, stable rank %{y:.3f}<extra></extra>"}; });
    if (chosen) traces.push({x: [chosen[0]], y: [chosen[1]], mode: "markers", name: "chosen head", hoverinfo: "skip",
      marker: {symbol: "circle-open", size: 18, color: "#1d2329", line: {width: 2}}});
    const ranks = [...groups.values()].flatMap(points => points.y).filter(y => y != null), most = Math.log10(1.15 * Math.max(run.thresholds.rank_max, ...ranks));
    const t = run.thresholds, dashed = {color: "#59636e", width: 1, dash: "dash"};
    const upright = (x, text) => ({x, y: 1, yref: "paper", text, showarrow: false, textangle: -90, xanchor: "right", yanchor: "top", font: {size: 10}});
    return {traces, layout: base(420, {xaxis: axis("value ratio ‖u_s‖ / mean ‖u_j‖", {rangemode: "tozero"}), yaxis: axis("stable rank of the update", {type: "log", range: [-0.03, most], tickvals: [1, 1.2, 1.5, 2, 3, 5, 10, 20, 50, 100, 200]}),
      annotations: [upright(t.nop_max, `NOP ≤ ${t.nop_max}`), upright(t.broadcast_min, `broadcast ≥ ${t.broadcast_min}`)],
      shapes: [...[t.nop_max, t.broadcast_min].map(x => ({type: "line", x0: x, x1: x, y0: 0, y1: 1, yref: "paper", line: dashed})),
               {type: "line", x0: 0, x1: 1, xref: "paper", y0: t.rank_max, y1: t.rank_max, line: dashed}]})};
  },

  norms(report, state, width) {
    const runs = report.runs.filter(run => run.blocks), names = variants(runs), traces = [], seen = new Set();
    const {layout, at} = facets(names.length, width, {titles: names, x: {title: "block"}, y: {title: "L2 norm", type: "log"}});
    for (const run of runs) for (const kind of ["cls", "register", "patch"]) for (const [stat, dash] of [["median", "solid"], ["p99", "dot"]]) {
      const values = run.blocks[`norm_${kind}_${stat}`], name = `${kind}, ${stat}`;
      if (!defined(values)) continue;
      traces.push({x: run.blocks.block, y: values, mode: "lines", name, legendgroup: name, showlegend: !seen.has(name),
        line: {color: report.type_colors[kind], dash, width: run === state.run ? 2.6 : 1.2}, opacity: run === state.run ? 1 : .6,
        customdata: run.blocks.block.map(b => ({run: run.name, block: b})), ...at(names.indexOf(run.variant)),
        hovertemplate: `${run.name}<br>block %{x}, ${name}: %{y:.4g}<extra></extra>`});
      seen.add(name);
    }
    return {traces, layout};
  },

  formation(report, {run, rule, block, head}, width) {
    const labels = run.labels_by_step[rule], single = run.frequency_by_step;
    if (!labels && !single) return {missing: `${run.name} holds no measurements during training (a diagnosis looks at one checkpoint).`};
    const {layout, at} = facets(2, Math.min(width, 400), {least: 400, row: 190, x: {title: "optimizer step"}, shared: false});
    layout.yaxis.title = {text: "events per image"}; layout.yaxis2.title = {text: "frequency"};
    layout.yaxis2.range = [-.03, 1.03]; layout.xaxis2.matches = "x"; layout.yaxis.rangemode = "tozero";
    const traces = labels ? LABELS.map(label => ({x: labels.step, y: labels[label], name: LABEL_NAMES[label], mode: "lines+markers",
      marker: {size: 4}, line: {color: report.label_colors[label]}, ...at(0), hovertemplate: `step %{x}<br>${LABEL_NAMES[label]}: %{y:.3f} per image<extra></extra>`})) : [];
    const shown = single && single[rule] ? rule : "adaptive";
    if (single) run.heads.block.forEach((b, p) => { const mine = run.heads.head[p] === head;
      if (b === block) traces.push({x: single.step, y: single[shown][p], mode: mine ? "lines+markers" : "lines", showlegend: mine,
        name: `block ${b}, head ${run.heads.head[p]} (rule ${shown})`, line: {color: mine ? "#1d2329" : "#c3cad1", width: mine ? 2.4 : 1},
        customdata: single.step.map(() => ({block: b, head: run.heads.head[p]})), ...at(1),
        hovertemplate: `block ${b}, head ${run.heads.head[p]}<br>step %{x}: %{y:.3f}<extra></extra>`}); });
    return {traces, layout};
  },

  scatter(report, {rule, metric, run: chosen}) {
    const runs = report.runs.filter(run => run.heads && run.heads.sinks[rule] && run.metrics[metric] != null);
    if (!runs.length) return {missing: `No run has both ${metric || "a task metric"} and labels of the rule ${rule}.`};
    const events = run => sum(LABELS.map(label => run.heads.sinks[rule][label]));
    const traces = variants(runs).map(variant => { const some = runs.filter(run => run.variant === variant);
      return {x: some.map(events), y: some.map(run => run.metrics[metric]), name: variant, mode: "markers", cliponaxis: false, customdata: some.map(run => ({run: run.name})),
        text: some.map(run => `${run.name}${unended(run)}`),
        marker: {size: 11, opacity: .85, color: variantColor(report, variant), symbol: some.map(run => run.finished ? "circle" : "circle-open")},
        hovertemplate: `%{text}<br>%{x:.3f} events per image<br>${metric} %{y:.4g}<extra></extra>`}; });
    const most = Math.max(...runs.map(events), 1e-3);
    if (runs.includes(chosen)) traces.push({x: [events(chosen)], y: [chosen.metrics[metric]], mode: "markers", name: "chosen run", hoverinfo: "skip", cliponaxis: false,
      marker: {symbol: "circle-open", size: 18, color: "#1d2329", line: {width: 2}}});
    return {traces, layout: base(380, {xaxis: axis(`events per image, rule ${rule}`, {range: [-0.03 * most, 1.06 * most]}), yaxis: axis(metric)})};
  },

  ablation(report) {
    const cells = report.ablation.cells, names = cells.map(cell => cell.name);
    return {traces: [
      {x: cells.flatMap(c => c.values), y: cells.flatMap(c => c.values.map(() => c.name)), mode: "markers", name: "runs", marker: {color: "#98a3ae", size: 7, symbol: "line-ns-open"},
       hovertemplate: "%{y}<br>%{x:.4g}<extra></extra>"},
      {x: cells.map(c => c.mean), y: names, mode: "markers", name: "mean, 95 % interval", marker: {color: "#0072B2", size: 9}, text: cells.map(c => c.text),
       error_x: {type: "data", symmetric: false, array: cells.map(c => c.high == null ? 0 : c.high - c.mean), arrayminus: cells.map(c => c.low == null ? 0 : c.mean - c.low), color: "#0072B2"},
       hovertemplate: "%{text}<extra></extra>"}],
      layout: base(120 + 34 * cells.length, {xaxis: axis(report.ablation.metric), yaxis: {automargin: true, autorange: "reversed", gridcolor: GRID}})};
  },

  effects(report) {
    const {differences, interactions} = report.ablation, rows = [...differences, ...interactions];
    const part = (some, name, color, symbol) => ({x: some.map(r => r.value), y: some.map(r => r.name), mode: "markers", name, text: some.map(r => r.text),
      marker: {color: color, size: 9, symbol}, hovertemplate: "%{text}<extra></extra>", error_x: {type: "data", symmetric: false, color: color,
        array: some.map(r => r.high == null ? 0 : r.high - r.value), arrayminus: some.map(r => r.low == null ? 0 : r.value - r.low)}});
    return {traces: [part(differences, "less the baseline", "#0072B2", "circle"), part(interactions, "interaction", "#D55E00", "diamond")],
      layout: base(120 + 34 * rows.length, {xaxis: axis(`difference in ${report.ablation.metric}`, {zeroline: true, zerolinecolor: "#1d2329"}),
        yaxis: {automargin: true, autorange: "reversed", gridcolor: GRID}})};
  },

  labels(report, {rule}, width) {
    const runs = report.runs.filter(run => run.heads && run.heads.by_type[rule]), names = variants(runs);
    if (!runs.length) return {missing: `No run has labels of the rule ${rule}.`};
    const {layout, at} = facets(3, width, {titles: LABELS.map(label => LABEL_NAMES[label]), y: {title: "events per image", rangemode: "tozero"}, x: {tickangle: -40}, row: 280, below: 130});
    const traces = [];
    LABELS.forEach((label, i) => report.kinds.forEach(kind => {
      const y = names.map(name => { const some = runs.filter(run => run.variant === name); return sum(some.map(run => run.heads.by_type[rule][label][kind])) / some.length; });
      if (y.some(v => v > 0) || (!i && kind === "patch")) traces.push({type: "bar", x: names, y, name: kind, legendgroup: kind, showlegend: !traces.some(t => t.name === kind), ...at(i),
        marker: {color: report.type_colors[kind]}, hovertemplate: `%{x}<br>${LABEL_NAMES[label]} on ${kind}: %{y:.3f} per image<extra></extra>`});
    }));
    return {traces, layout: {...layout, barmode: "stack"}};
  },

  stability(report, state, width) {
    const names = {"stability/loss_spikes": "loss spikes", "stability/grad_spikes": "gradient spikes", "stability/nonfinite_steps": "steps not finite"};
    const runs = report.runs.filter(run => Object.keys(names).some(name => run.metrics[name] != null));
    if (!runs.length) return {missing: "No run logged its stability."};
    const {layout, at} = facets(3, width, {titles: Object.values(names), row: Math.max(110, 22 * runs.length + 40), y: {autorange: "reversed", type: "category"}, x: {rangemode: "tozero"}});
    return {traces: Object.entries(names).map(([name, title], i) => ({type: "bar", orientation: "h", showlegend: false, x: runs.map(run => run.metrics[name] ?? 0),
      y: runs.map(run => run.name + unended(run)), customdata: runs.map(run => ({run: run.name})), ...at(i),
      marker: {color: runs.map(run => variantColor(report, run.variant))}, hovertemplate: `%{y}<br>${title}: %{x}<extra></extra>`})), layout};
  },

  sensitivity(report, {run, rule}, width) {
    if (!run.sensitivity) return {missing: `${run.name} is no diagnosis: python -m sinkablate diagnose --run … measures its thresholds.`};
    const table = run.sensitivity[rule] ?? run.sensitivity.causal, used = run.sensitivity[rule] ? rule : "causal", names = Object.keys(report.moves);
    const {layout, at} = facets(names.length, width, {x: {title: Object.values(report.moves)}, y: {title: `per image, rule ${used}`, rangemode: "tozero"}});
    layout.shapes = [];
    const traces = names.flatMap((name, i) => { const rows = table.axis.map((a, r) => a === name ? r : -1).filter(r => r >= 0), {xaxis, yaxis} = at(i);
      const home = table[name][table.steps.indexOf(0)];
      layout.shapes.push({type: "line", xref: xaxis, yref: `${yaxis} domain`, x0: home, x1: home, y0: 0, y1: 1, line: {color: "#59636e", width: 1, dash: "dash"}});
      return ["events", ...LABELS].map(label => ({x: rows.map(r => table[name][r]), y: rows.map(r => table[label][r]), mode: "lines+markers", name: LABEL_NAMES[label] ?? label,
        legendgroup: label, showlegend: !i, xaxis, yaxis, line: {color: report.label_colors[label] ?? "#1d2329", width: label === "events" ? 1 : 2},
        hovertemplate: `${report.moves[name]} %{x}<br>${LABEL_NAMES[label] ?? label}: %{y:.3f} per image<extra></extra>`})); });
    return {traces, layout};
  },
};
