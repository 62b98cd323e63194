"use strict";
// The panels that show the chosen run; see panels.js.

Object.assign(PANELS, {
  handoff({run, rule, block}, width) {
    const table = run.blocks;
    if (!table) return {missing: `${run.name} has no table of blocks.`};
    const frames = {"dominant_": "type of the dominant column", [`events_${rule}_`]: `type of the sinks, rule ${rule}`, "relative_mass_": "attention to one token"};
    const kinds = kindsOf(run), perToken = kinds.flatMap(kind => table[`relative_mass_${kind}`] ?? []), traces = [], listed = new Set();
    const {layout, at, say} = facets(3, width, {titles: Object.values(frames), x: {title: "block", ...(table.block.length < 7 ? {dtick: 1} : {})}, shared: false,
      y: {title: "share (0 to 1)", range: [-0.03, 1.03]}});
    Object.assign(layout.yaxis3, {range: undefined, ...logAxis(perToken), title: {text: "mass per token (mean: 1)", standoff: 6}});
    layout.shapes = [0, 1, 2].map(i => ({type: "line", xref: at(i).xaxis, yref: `${at(i).yaxis} domain`, x0: block, x1: block, y0: 0, y1: 1, line: {color: themed("border"), width: 1}}));
    const line = (kind, values, i, chance) => { const name = kindName(kind, run) + (chance ? ", chance" : "");
      traces.push({x: table.block, y: values, name, legendgroup: name, showlegend: !listed.has(name), mode: chance ? "lines" : "lines+markers", connectgaps: false,
        line: {color: color(report.type_colors[kind]), dash: chance ? "dash" : "solid", width: chance ? 1.5 : 2}, marker: {symbol: SYMBOLS[kind], size: 6}, opacity: chance ? .6 : 1,
        customdata: table.block.map(b => ({run: run.name, block: b})), meta: {quantity: Object.values(frames)[i]}, ...at(i), hovertemplate: `block %{x}<br>${name}: %{y:.4g}<extra></extra>`});
      listed.add(name); };
    Object.keys(frames).forEach((prefix, i) => {
      const shown = kinds.filter(kind => defined(table[prefix + kind]));
      if (!shown.length) say(i, i === 1 ? "no event" : "not measured");
      for (const kind of shown) line(kind, table[prefix + kind], i);
      if (!i) for (const kind of shown) if (defined(table[`chance_${kind}`])) line(kind, table[`chance_${kind}`], i, true);
    });
    return {traces, layout, csv: {x: "block", y: "value"}};
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

  atlas({run, rule, block, head, value}) {
    const points = run.atlas?.[rule];
    if (!points) return {missing: `${run.name} holds no medians over the events of the rule ${rule}; those of causal and adaptive are measured.`};
    const chosen = points.values[value] ? value : "ratio_out", values = points.values[chosen], heads = run.heads, last = Math.max(1, ...heads.block), markers = {nop: "circle", broadcast: "square", other: "triangle-up", none: "circle"};
    const traces = [...LABELS, "none"].map(label => { const own = points.label.map((l, p) => l === label ? p : -1).filter(p => p >= 0), gray = label === "none";
      return {x: own.map(p => points.rank[p]), y: own.map(p => values[p]), mode: "markers", name: gray ? `fewer than ${points.min_events} events` : LABEL_NAMES[label],
        customdata: own.map(p => ({run: run.name, block: heads.block[p], head: heads.head[p]})),
        text: own.map(p => `block ${heads.block[p]}, head ${heads.head[p]}: ${points.events[p]} events, ` + (gray ? "medians over all images" : `sink on ${kindName(report.kinds[heads.token_type[p]] ?? "patch", run)}`)),
        hovertemplate: `%{text}<br>${points.rank_name} %{x:.3f}, %{y:.3f}<extra></extra>`,
        marker: {symbol: own.length ? own.map(p => markers[label] + (heads.block[p] ? "" : "-open")) : markers[label], size: gray ? 6 : 10, opacity: gray ? .7 : .9,
          ...(gray ? {color: themed("border")} : {color: own.length ? own.map(p => heads.block[p]) : themed("soft"), colorscale: "Viridis", cmin: 0, cmax: last,
            showscale: label === points.label.find(l => l !== "none"), colorbar: {title: {text: "block", side: "right"}, thickness: 12}})}}; });
    const p = placeOf();
    if (p >= 0) traces.push({x: [points.rank[p]], y: [values[p]], mode: "markers", name: "chosen head", hoverinfo: "skip", marker: {symbol: "circle-open", size: 18, color: themed("ink"), line: {width: 2}}});
    return {traces, csv: {x: points.rank_name, y: report.values[chosen]}, layout: atlasLayout(points, chosen)};
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

  token_maps({run, block, image}, width) {
    const maps = run.token_maps;
    if (!maps) return {missing: `${run.name} holds no token maps; python -m sinkablate diagnose measures them on images.`};
    const index = (b, part) => maps.stages.findIndex(stage => stage.block === b && stage.stage === part), own = index(block, "input");
    const numbers = [own < 0 ? index(block - 1, "output") : own, index(block, "output")].filter(stage => stage >= 0), shown = numbers.map(stage => maps.stages[stage]);
    const [rows, columns] = maps.grid, across = [...Array(columns).keys()], down = [...Array(rows).keys()], grid = f => down.map(r => across.map(c => f(r * columns + c)));
    const count = stage => stage.cutoff == null ? "no outliers" : `${stage.norms[image].filter(norm => norm > stage.cutoff).length} outliers above ${number(stage.cutoff)}`;
    const tokens = stage => Object.entries(stage.prefix).map(([kind, norms]) => `${kindName(kind, run)} ${number(norms[image])}`);
    const titles = [maps.names[image], ...shown.map(stage => [stage.name, count(stage), tokens(stage).join(", ")].filter(Boolean).join("<br>")), `outliers of all images,<br>${shown.at(-1).name}`];
    const {layout, at, say} = facets(titles.length, width, {least: 200, row: 220, titles, x: {visible: false}, y: {visible: false}, shared: false, gap: 24, below: 110});
    for (const i of titles.keys()) Object.assign(layout[at(i).yaxis.replace("y", "yaxis")], {autorange: false, range: [rows - .5, -.5], scaleanchor: at(i).xaxis, constrain: "domain", constraintoward: "top"});
    for (const i of titles.keys()) Object.assign(layout[at(i).xaxis.replace("x", "xaxis")], {range: [-.5, columns - .5], constrain: "domain"});
    const bar = i => { const {domain} = layout[at(i).xaxis.replace("x", "xaxis")], low = layout[at(i).yaxis.replace("y", "yaxis")].domain[0];
      return {orientation: "h", thickness: 8, len: .9 * (domain[1] - domain[0]), x: (domain[0] + domain[1]) / 2, xanchor: "center", y: low, yanchor: "top", nticks: 4}; };
    const map = (i, z, stage, range, text) => ({type: "heatmap", x: across, y: down, z: grid(p => z[p]), zmin: range[0], zmax: range[1], colorscale: "Viridis", colorbar: bar(i), ...at(i), meta: {stage: stage.name},
      customdata: grid(p => ({run: run.name, image: i > numbers.length ? "all" : maps.names[image], cutoff: stage.cutoff})), hovertemplate: `row %{y}, column %{x}<br>${text} %{z}<extra></extra>`});
    const traces = [{x: [0], y: [0], mode: "markers", marker: {opacity: 0}, hoverinfo: "skip", ...at(0)}, ...shown.map((stage, i) => map(i + 1, stage.norms[image], stage, stage.range, "norm")),
      map(titles.length - 1, shown.at(-1).frequency, shown.at(-1), [0, 1], "share of images")];
    shown.forEach((stage, i) => { const far = stage.cutoff == null ? [] : stage.norms[image].flatMap((norm, p) => norm > stage.cutoff ? [p] : []);
      traces.push({x: far.map(p => p % columns), y: far.map(p => Math.floor(p / columns)), mode: "markers", hoverinfo: "skip", marker: {symbol: "square-open", size: Math.max(4, 150 / columns), color: "#D55E00"}, ...at(i + 1)}); });
    layout.images = [{source: report.pictures[maps.pictures[image]], xref: at(0).xaxis, yref: at(0).yaxis, x: -.5, y: -.5, sizex: columns, sizey: rows, sizing: "stretch"}];
    if (shown.at(-1).cutoff == null) say(titles.length - 1, "none");
    return {traces, csv: {x: "column", y: "row", z: "value"}, layout: {...layout, showlegend: false, margin: {l: 14, r: 14, t: 60, b: 50}}};
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
    const classes = [...new Set(table.class)], palette = {...report.label_colors, pathway: "#009E73", none: "#555555"}, title = `relative RMS change of the ${run.final_tokens}`;
    const {at, options, annotations} = brokenLogAxis(table.effect);
    const traces = classes.map(name => { const rows = table.class.map((c, r) => c === name ? r : -1).filter(r => r >= 0);
      const trace = intervals(rows.map(r => ({value: at(table.effect[r]), low: at(table.effect_low[r]), high: at(table.effect_high[r]), name: report.edits[table.edit[r]],
        text: `${table.head[r] == null ? "pathway" : `block ${table.block[r]}, head ${table.head[r]}`}: ${report.edits[table.edit[r]]}<br>change ${number(table.effect[r])}, ${table.images[r]} images`})),
        LABEL_NAMES[name] ?? (name === "none" ? "no label" : name), palette[name] ?? "#555555", SYMBOLS.cls);
      const customdata = rows.map(r => ({run: run.name, block: table.block[r], head: table.head[r], low: table.effect_low[r], high: table.effect_high[r], [title]: table.effect[r]}));
      return {...trace, customdata}; });
    return {traces, csv: {x: title, y: "edit"}, layout: base(130 + 34 * names.length, {xaxis: axis(`RMS change, ${run.final_tokens}`, options), yaxis: categories(names), annotations})};
  },
});

function atlasLayout(points, value) {  // axes, with a dashed line for each limit of the rule on them
  const dashed = {color: themed("soft"), width: 1, dash: "dash"}, texts = {nop_max: "NOP: ratio ≤", broadcast_min: "broadcast: ratio ≥", rank_max: "broadcast: rank ≤"};
  const across = Object.entries(points.limits.rank), down = Object.entries(points.limits[value]);
  const most = Math.log10(1.15 * Math.max(1, ...across.map(([, limit]) => limit), ...points.rank.filter(x => x != null)));
  const label = (name, limit, more) => ({text: `${texts[name]} ${limit}`, showarrow: false, font: {size: 10}, bgcolor: themed("paper"), borderpad: 1, xanchor: "right", ...more});
  return base(420, {yaxis: axis(report.values[value], {rangemode: "tozero"}),
    xaxis: axis(points.rank_name, {...logAxis([1, 10 ** most]), range: [-0.03, most]}),
    annotations: [...across.map(([name, x]) => label(name, x, {x: Math.log10(x), y: 1, yref: "paper", textangle: -90, yanchor: "top"})),
      ...down.map(([name, y]) => label(name, y, {y, x: 1, xref: "paper", yanchor: "bottom"}))],
    shapes: [...across.map(([, x]) => ({type: "line", x0: x, x1: x, y0: 0, y1: 1, yref: "paper", line: dashed})),
             ...down.map(([, y]) => ({type: "line", x0: 0, x1: 1, xref: "paper", y0: y, y1: y, line: dashed}))]});
}
