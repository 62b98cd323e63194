"use strict";
// The panels that show the chosen run; see panels.js.

Object.assign(PANELS, {
  handoff({run, rule, block}) {
    const table = run.blocks;
    if (!table) return {missing: `${run.name} has no table of blocks.`};
    const kinds = kindsOf(run), total = sum(Object.values(run.tokens));
    const line = (kind, what, values, style, more = {}) => ({x: table.block, y: values, name: `${kindName(kind, run)}, ${what}`, mode: "lines+markers", connectgaps: false,
      line: {color: color(report.type_colors[kind]), dash: style}, marker: {symbol: SYMBOLS[kind], size: 7}, customdata: table.block.map(b => ({run: run.name, block: b})),
      hovertemplate: `block %{x}<br>${kindName(kind, run)}, ${what}: %{y:.3f}<extra></extra>`, ...more});
    const traces = kinds.map(kind => line(kind, "mass", table[`mass_${kind}`], "solid"));
    for (const kind of kinds) {
      const events = table[`events_${rule}_${kind}`];
      if (defined(events)) traces.push(line(kind, "events", events, "dot", {opacity: .75}));
      if (run.tokens[kind]) traces.push(line(kind, "chance", table.block.map(() => run.tokens[kind] / total), "dash", {mode: "lines", opacity: .6, line: {color: color(report.type_colors[kind]), dash: "dash", width: 1.5}}));
    }
    return {traces, csv: {x: "block", y: "share"}, layout: base(370, {margin: {l: 56, r: 14, t: 14, b: 100}, xaxis: blockAxis(table.block), yaxis: axis("share (0 to 1)", {range: [-0.03, 1.03]}),
      shapes: [{type: "line", x0: block, x1: block, y0: 0, y1: 1, yref: "paper", line: {color: themed("border"), width: 1}}]})};
  },

  frequency({run, rule, block, head}) {
    const heads = run.heads;
    if (!heads) return {missing: `${run.name} has no table of heads.`};
    const blocks = [...new Set(heads.block)], numbers = [...new Set(heads.head)];
    const grid = f => blocks.map((_, r) => numbers.map((_, c) => f(r * numbers.length + c)));
    const text = index => { const c = counted(run, rule, index), kind = report.kinds[heads.token_type[index]];
      return `block ${heads.block[index]}, head ${heads.head[index]}<br>${c.events} events in ${heads.images} images` + (c.events ? `: ${c.nop} NOP, ${c.broadcast} broadcast, ${c.other} other` : "") +
        `<br>dominant column: ${kind ? kindName(kind, run) : "–"}, mass ${number(heads.quantities.median_mass[index])}`; };
    return {csv: {x: "head", y: "block", z: `share of images with an event (${rule})`}, traces: [{type: "heatmap", x: numbers, y: blocks, z: grid(p => counted(run, rule, p).frequency), text: grid(text), zmin: 0, zmax: 1,
      customdata: grid(p => ({run: run.name, block: heads.block[p], head: heads.head[p]})), hovertemplate: "%{text}<extra></extra>", colorscale: "Viridis",
      xgap: 1, ygap: 1, colorbar: {title: {text: "share of images", side: "right"}, thickness: 12}}],
      layout: base(Math.max(240, 80 + 20 * blocks.length), {margin: {l: 56, r: 14, t: 14, b: 44}, xaxis: axis("head", {dtick: 1, showgrid: false}), yaxis: blockAxis(blocks, {showgrid: false}),
        shapes: [{type: "rect", x0: head - .5, x1: head + .5, y0: block - .5, y1: block + .5, line: {color: "#D55E00", width: 3}}]})};
  },

  atlas({run, rule, block, head}) {
    const heads = run.heads;
    if (!heads || !heads.quantities.median_ratio_out) return {missing: `${run.name} does not hold value ratios.`};
    const q = heads.quantities, groups = new Map();
    const overEvents = heads.block.map((_, p) => rule === report.event_rule && counted(run, rule, p).events && q.event_median_ratio_out?.[p] != null);
    const ratios = overEvents.map((own, p) => (own ? q.event_median_ratio_out : q.median_ratio_out)[p]);
    const ranks = overEvents.map((own, p) => (own ? q.event_median_stable_rank : q.median_stable_rank)[p]);
    heads.block.forEach((b, p) => {
      const c = counted(run, rule, p), kind = report.kinds[heads.token_type[p]] ?? "patch", key = c.label ? `${c.label}|${kind}` : "none|";
      if (!groups.has(key)) groups.set(key, {x: [], y: [], text: [], customdata: []});
      const group = groups.get(key);
      group.x.push(ratios[p]); group.y.push(ranks[p]); group.customdata.push({run: run.name, block: b, head: heads.head[p]});
      group.text.push(`block ${b}, head ${heads.head[p]}: ${c.events} events` + (c.events ? `, sink on ${kindName(kind, run)}` : ""));
    });
    const look = key => { const [label, kind] = key.split("|"); return label === "none" ? {color: themed("border"), size: 6, opacity: .7}
      : {color: color(report.label_colors[label]), symbol: SYMBOLS[kind], size: 10, opacity: .85}; };
    const name = key => { const [label, kind] = key.split("|"); return label === "none" ? "no event" : `${LABEL_NAMES[label]}, ${kindName(kind, run)}`; };
    const traces = [...groups].sort().map(([key, points]) => ({...points, mode: "markers", name: name(key), marker: look(key), hovertemplate: "%{text}<br>value ratio %{x:.3f}, stable rank %{y:.3f}<extra></extra>"}));
    for (const label of [...LABELS, "none"]) if (![...groups.keys()].some(key => key.startsWith(`${label}|`)))
      traces.push(legendOnly(label === "none" ? "no event" : LABEL_NAMES[label], look(`${label}|patch`)));
    const p = placeOf();
    if (p >= 0) traces.push({x: [ratios[p]], y: [ranks[p]], mode: "markers", name: "chosen head", hoverinfo: "skip", marker: {symbol: "circle-open", size: 18, color: themed("ink"), line: {width: 2}}});
    return {traces, csv: {x: "value ratio", y: "stable rank"}, layout: atlasLayout(run, ranks)};
  },

  formation({run, rule, block, head}, width) {
    const labels = run.labels_by_step[rule], single = run.frequency_by_step;
    if (!labels && !single) return {missing: `${run.name} does not hold measurements during training (a diagnosis looks at one checkpoint).`};
    const steps = labels?.step ?? single.step;
    const {layout, at, say} = facets(2, Math.min(width, 400), {least: 400, row: 190, x: {title: "optimizer step", ...countTicks(Math.max(...steps))}, shared: false});
    layout.yaxis.title = {text: "sink events per image"}; layout.yaxis2.title = {text: "share of images"};
    layout.yaxis2.range = [-.03, 1.03]; layout.xaxis2.matches = "x"; layout.yaxis.rangemode = "tozero";
    if (labels && !LABELS.some(label => labels[label].some(value => value))) say(0, "no events at any step");
    const traces = labels ? LABELS.map(label => ({x: labels.step, y: labels[label], name: LABEL_NAMES[label], mode: "lines+markers", meta: {run: run.name, quantity: "sink events per image"},
      marker: {size: 4}, line: {color: color(report.label_colors[label])}, ...at(0), hovertemplate: `step %{x}<br>${LABEL_NAMES[label]}: %{y:.3f} per image<extra></extra>`})) : [];
    const followed = single ? Object.keys(single).filter(name => name !== "step") : [], used = followed.includes(rule) ? rule : followed.at(-1);
    if (used) run.heads.block.forEach((b, p) => { const mine = run.heads.head[p] === head;
      if (b === block) traces.push({x: single.step, y: single[used][p], mode: mine ? "lines+markers" : "lines", showlegend: mine, meta: {quantity: "share of images with an event"},
        name: `block ${b}, head ${run.heads.head[p]} (rule ${used})`, line: {color: mine ? themed("ink") : themed("border"), width: mine ? 2.4 : 1},
        customdata: single.step.map(() => ({run: run.name, block: b, head: run.heads.head[p]})), ...at(1),
        hovertemplate: `block ${b}, head ${run.heads.head[p]}<br>step %{x}: %{y:.3f}<extra></extra>`}); });
    return {traces, layout, csv: {x: "optimizer step", y: "value"}};
  },

  sensitivity({run, rule}, width) {
    if (!run.sensitivity) return {missing: `${run.name} was not diagnosed: python -m sinkablate diagnose --run … measures its thresholds.`};
    const used = run.sensitivity[rule] ? rule : Object.keys(run.sensitivity)[0], table = run.sensitivity[used], names = Object.keys(report.moves);
    const {layout, at} = facets(names.length, width, {x: {title: Object.values(report.moves)}, y: {title: `per image, rule ${used}`, rangemode: "tozero"}});
    layout.shapes = [];
    const traces = names.flatMap((name, i) => { const rows = table.axis.map((a, r) => a === name ? r : -1).filter(r => r >= 0), {xaxis, yaxis} = at(i);
      const home = table[name][table.steps.indexOf(0)];
      layout.shapes.push({type: "line", xref: xaxis, yref: `${yaxis} domain`, x0: home, x1: home, y0: 0, y1: 1, line: {color: themed("soft"), width: 1, dash: "dash"}});
      return ["events", ...LABELS].map(label => ({x: rows.map(r => table[name][r]), y: rows.map(r => table[label][r]), mode: "lines+markers", name: LABEL_NAMES[label], meta: {run: run.name, threshold: name},
        legendgroup: label, showlegend: !i, xaxis, yaxis, line: {color: label === "events" ? themed("ink") : color(report.label_colors[label]), width: label === "events" ? 1 : 2},
        hovertemplate: `${report.moves[name]} %{x}<br>${LABEL_NAMES[label]}: %{y:.3f} per image<extra></extra>`})); });
    return {traces, layout, csv: {x: "value of the threshold", y: "per image"}};
  },

  edits({run}) {
    const table = run.edits, names = Object.values(report.edits);
    if (!table) return {missing: `${run.name} was not edited: python -m sinkablate intervene --run … tests what its labels claim.`};
    const classes = [...new Set(table.class)], palette = {...report.label_colors, pathway: "#009E73", none: "#555555"};
    const traces = classes.map(name => { const rows = table.class.map((c, r) => c === name ? r : -1).filter(r => r >= 0);
      return intervals(rows.map(r => ({value: table.effect[r], low: table.effect_low[r], high: table.effect_high[r], name: report.edits[table.edit[r]],
        text: `${table.head[r] == null ? "pathway" : `block ${table.block[r]}, head ${table.head[r]}`}: ${report.edits[table.edit[r]]}<br>change ${number(table.effect[r])}, ${table.images[r]} images`})),
        LABEL_NAMES[name] ?? (name === "none" ? "no label" : name), palette[name] ?? "#555555", SYMBOLS.cls); });
    classes.forEach((name, i) => { const rows = table.class.map((c, r) => c === name ? r : -1).filter(r => r >= 0);
      traces[i].customdata = rows.map(r => ({run: run.name, block: table.block[r], head: table.head[r], low: table.effect_low[r], high: table.effect_high[r]})); });
    return {traces, csv: {x: "relative RMS change of the final patch tokens", y: "edit"},
      layout: base(130 + 34 * names.length, {showlegend: true, xaxis: axis("relative RMS change", {rangemode: "tozero"}), yaxis: categories(names)})};
  },
});

function atlasLayout(run, ranks) {  // axes and the dashed thresholds
  const t = run.thresholds, dashed = {color: themed("soft"), width: 1, dash: "dash"};
  const most = Math.log10(1.15 * Math.max(t.rank_max, ...ranks.filter(y => y != null)));
  const label = (text, more) => ({text, showarrow: false, font: {size: 10}, bgcolor: themed("paper"), borderpad: 1, ...more});
  const upright = (x, text) => label(text, {x, y: 1, yref: "paper", textangle: -90, xanchor: "right", yanchor: "top"});
  return base(420, {xaxis: axis("value ratio: norm of the sink's value / mean norm", {rangemode: "tozero"}),
    yaxis: axis("stable rank of the update", {...logAxis([1, 10 ** most]), range: [-0.03, most]}),
    annotations: [upright(t.nop_max, `NOP: ratio ≤ ${t.nop_max}`), upright(t.broadcast_min, `broadcast: ratio ≥ ${t.broadcast_min}`),
      label(`broadcast: rank ≤ ${t.rank_max}`, {x: 1, xref: "paper", y: Math.log10(t.rank_max), xanchor: "right", yanchor: "bottom"})],
    shapes: [...[t.nop_max, t.broadcast_min].map(x => ({type: "line", x0: x, x1: x, y0: 0, y1: 1, yref: "paper", line: dashed})),
             {type: "line", x0: 0, x1: 1, xref: "paper", y0: t.rank_max, y1: t.rank_max, line: dashed}]});
}
