"use strict";
// The panels that show all runs. A panel is a function (state, width) -> {traces, layout, csv}, or {missing: text};
// csv names the columns of the numbers on its axes. Nothing here touches the page.

const legendOnly = (name, marker) => ({x: [null], y: [null], mode: "markers", name, marker, hoverinfo: "skip"});

const PANELS = {
  scatter({rule, metric, run: chosen}) {
    const runs = models().filter(run => run.heads && run.heads.sinks[rule] && run.metrics[metric] != null);
    if (!runs.length) return {missing: `No run has both ${metric || "a task metric"} and labels of the rule ${rule}.`};
    const events = run => run.heads.sinks[rule].events;
    const traces = variants(runs).map(variant => { const own = runs.filter(run => run.variant === variant);
      return {x: own.map(events), y: own.map(run => run.metrics[metric]), name: variant, mode: "markers", cliponaxis: false, customdata: own.map(run => ({run: run.name, state: run.state})),
        text: own.map(run => `${run.name}${stateOf(run)}`),
        marker: {size: 10, opacity: .85, color: variantColor(variant), symbol: own.map(run => run.state === "finished" ? "circle" : "circle-open")},
        hovertemplate: `%{text}<br>%{x:.3f} sink events per image<br>${metric} %{y:.4g}<extra></extra>`}; });
    const most = Math.max(...runs.map(events), 1e-3);
    if (runs.includes(chosen)) traces.push({x: [events(chosen)], y: [chosen.metrics[metric]], mode: "markers", name: "chosen run", hoverinfo: "skip", cliponaxis: false,
      marker: {symbol: "circle-open", size: 18, color: themed("ink"), line: {width: 2}}});
    return {traces, csv: {x: `sink events per image (${rule})`, y: metric},
      layout: base(380, {xaxis: axis(eventsTitle(rule), {range: [-0.03 * most, 1.06 * most]}), yaxis: axis(metricTitle(metric), {rangemode: "nonnegative"})})};
  },

  quality({rule}, width) {
    const runs = models().filter(run => run.heads && run.heads.sinks[rule]), of = name => runs.filter(run => run.metrics[name] != null);
    const names = report.quality.filter(name => of(name).length), traces = [], listed = new Set();
    if (!names.length) return {missing: `No run has both an evaluation and labels of the rule ${rule}.`};
    const {layout, at} = facets(names.length, width, {titles: names, x: {title: eventsTitle(rule)}, shared: false});
    names.forEach((name, i) => variants(of(name)).forEach(variant => { const own = of(name).filter(run => run.variant === variant);
      traces.push({x: own.map(run => run.heads.sinks[rule].events), y: own.map(run => run.metrics[name]), name: variant, legendgroup: variant, showlegend: !listed.has(variant), mode: "markers", cliponaxis: false,
        customdata: own.map(run => ({run: run.name})), meta: {metric: name}, marker: {size: 8, opacity: .85, color: variantColor(variant)}, ...at(i),
        hovertemplate: `%{customdata.run}<br>%{x:.3f} sink events per image<br>${name} %{y:.4g}<extra></extra>`});
      listed.add(variant); }));
    return {traces, layout, csv: {x: `sink events per image (${rule})`, y: "value"}};
  },

  labels({rule}, width) {
    const runs = models().filter(run => run.heads && run.heads.by_type[rule]), names = variants(runs);
    if (!runs.length) return {missing: `No run has labels of the rule ${rule}.`};
    const {layout, at, say} = facets(3, width, {titles: LABELS.map(label => LABEL_NAMES[label]), y: {title: "sink events per image", rangemode: "tozero"}, x: {tickangle: -40}, row: 280, below: 130});
    const mean = (name, label, kind) => { const own = runs.filter(run => run.variant === name); return sum(own.map(run => run.heads.by_type[rule][label][kind])) / own.length; };
    LABELS.forEach((label, i) => { if (!runs.some(run => run.heads.sinks[rule][label])) say(i, "no events"); });
    const kinds = report.kinds.filter(kind => runs.some(run => kindsOf(run).includes(kind) || LABELS.some(label => run.heads.by_type[rule][label][kind])));
    const traces = LABELS.flatMap((label, i) => kinds.map(kind => ({type: "bar", x: names, y: names.map(name => mean(name, label, kind)), name: kindName(kind), legendgroup: kind, showlegend: !i,
      meta: {label: LABEL_NAMES[label]}, marker: {color: color(report.type_colors[kind])}, ...at(i),
      hovertemplate: `%{x}<br>${LABEL_NAMES[label]} on ${kindName(kind)}: %{y:.3f} per image<extra></extra>`})));
    return {traces, csv: {x: "variant", y: "sink events per image"}, layout: {...layout, barmode: "stack", legend: {...layout.legend, title: {text: "the sink is"}}}};
  },

  ablation() {
    const cells = report.ablation.cells, names = cells.map(cell => cell.name);
    return {csv: {x: report.ablation.metric, y: "cell"}, traces: [
      {x: cells.flatMap(c => c.values), y: cells.flatMap(c => c.values.map(() => c.name)), mode: "markers", name: "single runs", marker: {color: themed("border"), size: 8, symbol: "line-ns-open"},
       hovertemplate: "%{y}<br>%{x:.4g}<extra></extra>"},
      intervals(cells, "mean, 95 % interval", "#0072B2", "circle")],
      layout: base(130 + 30 * cells.length, {xaxis: axis(metricTitle(report.ablation.metric)), yaxis: categories(names)})};
  },

  effects() {
    const {differences, interactions, baseline, metric} = report.ablation, rows = [...differences, ...interactions];
    const traces = [intervals(differences, `difference from ${baseline}`, "#0072B2", "circle")];
    if (interactions.length) traces.push(intervals(interactions, "interaction", "#D55E00", "diamond"));
    return {traces, csv: {x: `difference in ${metric}`, y: "cell"},
      layout: base(130 + 30 * rows.length, {showlegend: true, xaxis: axis(`difference in ${metricTitle(metric)}`, {zeroline: true, zerolinecolor: themed("ink")}), yaxis: categories(rows.map(row => row.name))})};
  },

  norms(state, width) {
    const runs = models().filter(run => run.blocks), names = variants(runs), traces = [], listed = new Set();
    const {layout, at} = facets(names.length, width, {titles: names, x: {title: "block", ...(runs.every(run => run.blocks.block.length < 7) ? {dtick: 1} : {})}, y: {title: "L2 norm", ...logAxis(runs.flatMap(run => Object.entries(run.blocks).flatMap(([name, norms]) => /^norm_.*_(median|p99)$/.test(name) ? norms : [])))}});
    names.forEach((name, i) => { if (runs.every(run => run.variant !== name || run.blocks.block.length < 2)) layout[`xaxis${i ? i + 1 : ""}`].range = [-.5, .5]; });
    for (const run of runs) for (const kind of ["cls", "register", "patch"]) for (const [stat, dash] of [["median", "solid"], ["p99", "dot"]]) {
      const values = run.blocks[`norm_${kind}_${stat}`], name = `${kindName(kind)}, ${stat === "p99" ? "99th percentile" : stat}`;
      if (!defined(values)) continue;
      traces.push({x: run.blocks.block, y: values, mode: values.length > 1 ? "lines" : "markers", name, legendgroup: name, showlegend: !listed.has(name),
        marker: {symbol: SYMBOLS[kind] + (dash === "dot" ? "-open" : "")}, line: {color: color(report.type_colors[kind]), dash, width: run === state.run ? 2.6 : 1.2}, opacity: run === state.run ? 1 : .6,
        customdata: run.blocks.block.map(b => ({run: run.name, block: b})), ...at(names.indexOf(run.variant)),
        hovertemplate: `${run.name}<br>block %{x}, ${name}: %{y:.4g}<extra></extra>`});
      listed.add(name);
    }
    return {traces, layout, csv: {x: "block", y: "L2 norm"}};
  },

  stability(state, width) {
    const names = {"stability/loss_spikes": "loss spikes", "stability/grad_spikes": "gradient spikes", "stability/nonfinite_steps": "non-finite steps"};
    const runs = report.runs.filter(run => Object.keys(names).some(name => run.metrics[name] != null));
    if (!runs.length) return {missing: "No run logged its stability."};
    const {layout, at, say} = facets(3, width, {titles: Object.values(names), row: Math.max(110, 18 * runs.length + 40), y: {autorange: "reversed", type: "category", dtick: 1}, x: {title: Array(3).fill("number of steps"), rangemode: "tozero"}});
    const most = name => Math.max(1, ...runs.map(run => run.metrics[name] ?? 0));
    Object.keys(names).forEach((name, i) => {
      Object.assign(layout[`xaxis${i ? i + 1 : ""}`], {range: [0, 1.05 * most(name)], ...countTicks(most(name))});
      if (!runs.some(run => run.metrics[name])) say(i, "0 in every run");
    });
    return {csv: {x: "number of steps", y: "run"}, traces: Object.entries(names).map(([name, title], i) => ({type: "bar", orientation: "h", showlegend: false, x: runs.map(run => run.metrics[name] ?? 0),
      y: runs.map(run => run.name + stateOf(run)), customdata: runs.map(run => ({run: run.name})), meta: {quantity: title}, ...at(i),
      marker: {color: runs.map(run => variantColor(run.variant))}, hovertemplate: `%{y}<br>${title}: %{x}<extra></extra>`})), layout};
  },
};

function intervals(rows, name, original, symbol) {
  const whisker = (row, end) => row[end] == null ? 0 : Math.abs(row[end] - row.value);
  return {x: rows.map(row => row.value), y: rows.map(row => row.name), mode: "markers", name, text: rows.map(row => row.text), hovertemplate: "%{text}<extra></extra>",
    customdata: rows.map(({low, high}) => ({low, high})), marker: {color: color(original), size: 9, symbol},
    error_x: {type: "data", symmetric: false, color: color(original), array: rows.map(row => whisker(row, "high")), arrayminus: rows.map(row => whisker(row, "low"))}};
}

function categories(names) {
  return {automargin: true, type: "category", categoryorder: "array", categoryarray: names, range: [names.length - .5, -.5], gridcolor: themed("grid")};
}
