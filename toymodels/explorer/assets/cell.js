"use strict";
// One cell: its numbers, the vectors of its models, their overlaps, its curves, and its seeds.

// The dimensionality of a feature in each polytope, the hidden dimensions that the polytope needs,
// and how far its name stands from its line.
const LEVELS = [["dedicated", 1, 1, 0], ["tetrahedron", 3 / 4, 3, 0], ["triangle", 2 / 3, 2, 0],
  ["digon", 1 / 2, 1, 0], ["pentagon", 2 / 5, 2, 0.01], ["antiprism", 3 / 8, 3, -0.03]];

function make(tag, properties, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

// The parts of an article are made once, and are filled again for every cell.
function partsOf(article) {
  if (!article.parts) {
    const parts = {
      head: make("h2"), seeds: make("div", { className: "seeds" }),
      plots: make("div", { className: "plots" }),
    };
    article.replaceChildren(parts.head, parts.seeds, parts.plots);
    article.parts = parts;
    article.plots = {};
  }
  return article.parts;
}

function drawCell(article, cell, prefix) {
  const parts = partsOf(article), chosen = withSeed(cell);
  parts.head.textContent = prefix + cellName(chosen);
  article.used = new Set();
  for (const entry of description.models) drawModel(article, entry, chosen);
  for (const entry of description.features) drawFeatures(article, entry, chosen);
  for (const entry of description.curves) drawCurve(article, entry, chosen);
  for (const [name, node] of Object.entries(article.plots)) node.hidden = !article.used.has(name);
  drawSeeds(parts.seeds, chosen);
}

function cellName(cell) {
  const words = description.axes.filter((axis) => relevant(axis.name))
    .map((axis) => `${axis.label} ${short(axis.values[cell[axis.name]])}`);
  return words.join(", ");
}

// An axis matters if the colour has it, or a model that shares an axis with the colour.
function relevant(name) {
  const axes = axesOfColour();
  const near = description.models.filter((entry) => entry.dims.some((dim) => axes.includes(dim)));
  return axes.includes(name) || near.some((entry) => entry.dims.includes(name));
}

function isShown(entry) {
  const axes = entry.dims.filter((dim) => description.axes.some((axis) => axis.name === dim));
  return axes.length === 0 || axes.every(relevant);
}

function said(entry, cell) {
  const value = numberAt(entry, cell);
  return entry.labels ? entry.labels[value] ?? "missing" : short(value);
}

// The table of all numbers of the chosen cell, and of the pinned one.
function drawFacts() {
  const cells = [view.at, view.pinned].filter(Boolean).map(withSeed);
  const [head, body] = document.querySelector("#facts table").children;
  head.replaceChildren(...(cells.length < 2 ? [] : [make("tr", {}, make("th"),
    make("th", { textContent: "chosen", scope: "col" }), make("th", { textContent: "pinned", scope: "col" }))]));
  body.replaceChildren(...description.numbers.filter(isShown).map((entry) => make("tr", {},
    make("th", { textContent: entry.label, scope: "row" }),
    ...cells.map((cell) => make("td", { textContent: said(entry, cell) })))));
}

// A drawing of an article by name; it is made when it is first needed.
function plot(article, name, heading, traces, extra, size = "plot") {
  article.used.add(name);
  if (!article.plots[name]) {
    const figure = make("div", {}, make("h3", { textContent: heading }), make("div", { className: size }));
    article.plots[name] = figure;
    article.parts.plots.append(figure);
  }
  article.plots[name].hidden = false;
  Plotly.react(article.plots[name].lastChild, traces, layout(extra), QUIET);
}

function drawModel(article, entry, cell) {
  if (!isShown(entry)) return;
  const matrix = matrixAt(entry, cell);
  if (matrix.flat().some((value) => !Number.isFinite(value))) return;
  const [hidden, features] = [matrix.length, matrix[0].length];
  const draw = hidden <= 2 ? plane : hidden === 3 ? space : graph;
  const what = hidden <= 3 ? `feature vectors of ${entry.label}` : `interference of ${entry.label}`;
  plot(article, `${entry.name} vectors`, what, ...draw(matrix));
  const order = byComponent(matrix), table = gram(matrix);
  const names = order.map((feature) => `feature ${feature}`);
  plot(article, `${entry.name} gram`, `overlaps of ${entry.label}, by component`, [{
    type: "heatmap", z: order.map((i) => order.map((j) => table[i][j])), x: names, y: names,
    zmin: -1, zmax: 1, colorscale: SIGNED, hovertemplate: "%{y}, %{x}: %{z:.3f}<extra></extra>",
    colorbar: { thickness: 8, outlinewidth: 0 },
  }], { margin: { l: 8, r: 8, t: 6, b: 8 }, xaxis: { visible: false, constrain: "domain" },
    yaxis: { visible: false, autorange: "reversed", scaleanchor: "x", constrain: "domain" } });
  if (entry !== mainModel) return;
  const each = dimensionality(matrix), levels = LEVELS.filter(([, , needed]) => needed <= hidden);
  plot(article, `${entry.name} dimensionality`, "dimensionality of each feature", [{
    x: order.map((_, k) => k), y: order.map((feature) => each[feature]), mode: "markers",
    marker: { size: 8, color: WORDS[0] }, text: names, hovertemplate: "%{text}: %{y:.3f}<extra></extra>",
  }], {
    margin: { l: 30, r: 76, t: 6, b: 8 }, xaxis: { visible: false, range: [-0.7, features - 0.3] },
    yaxis: { range: [-0.05, 1.08], gridcolor: "rgba(0,0,0,0)", zeroline: false, tickvals: [0, 0.5, 1] },
    shapes: levels.map(([, level]) => ({ type: "line", xref: "paper", x0: 0, x1: 1, y0: level, y1: level,
      line: { color: ink("--line"), width: 1 } })),
    annotations: levels.map(([name, level, , shift]) => ({ xref: "paper", x: 1.01, y: level + shift, text: name,
      showarrow: false, xanchor: "left", font: { size: 10, color: ink("--quiet") } })),
  });
}

// The colour of a feature tells its number, from dark to light.
function shade(feature, features) {
  return `hsl(${250 - 200 * feature / Math.max(features - 1, 1)}, 70%, 48%)`;
}

function plane(matrix) {
  const flat = matrix.length === 1 ? [matrix[0], matrix[0].map(() => 0)] : matrix;
  const traces = transpose(flat).map(([x, y], feature, all) => ({
    x: [0, x], y: [0, y], mode: "lines+markers", hovertemplate: `feature ${feature}: (%{x:.3f}, %{y:.3f})<extra></extra>`,
    line: { color: shade(feature, all.length), width: 2.5 }, marker: { size: [0, 9] },
  }));
  const limit = 1.15 * Math.max(1, ...flat.flat().map(Math.abs));
  const axis = { range: [-limit, limit], zerolinecolor: ink("--line"), showgrid: false, tickvals: [-1, 0, 1] };
  return [traces, { margin: { l: 26, r: 8, t: 6, b: 24 }, xaxis: { ...axis, constrain: "domain" },
    yaxis: { ...axis, scaleanchor: "x", constrain: "domain" } }];
}

function space(matrix) {
  const traces = transpose(matrix).map(([x, y, z], feature, all) => ({
    type: "scatter3d", x: [0, x], y: [0, y], z: [0, z], mode: "lines+markers", name: `feature ${feature}`,
    line: { color: shade(feature, all.length), width: 6 }, marker: { size: [0, 5], color: shade(feature, all.length) },
    hovertemplate: `feature ${feature}<extra></extra>`,
  }));
  const axis = { range: [-1.3, 1.3], title: { text: "" }, showticklabels: false, gridcolor: ink("--line") };
  return [traces, { margin: { l: 0, r: 0, t: 0, b: 0 }, dragmode: "orbit", uirevision: "kept",
    scene: { xaxis: axis, yaxis: axis, zaxis: axis, aspectmode: "cube" } }];
}

// More than three dimensions: features on a circle, joined where they overlap by more than 0.1.
function graph(matrix) {
  const table = gram(matrix), order = byComponent(matrix);
  const place = Object.fromEntries(order.map((feature, k) => [feature, 2 * Math.PI * k / order.length]));
  const traces = [];
  order.forEach((i) => order.forEach((j) => {
    if (i >= j || Math.abs(table[i][j]) < 0.1) return;
    traces.push({
      x: [Math.cos(place[i]), Math.cos(place[j])], y: [Math.sin(place[i]), Math.sin(place[j])],
      mode: "lines", hoverinfo: "skip", opacity: Math.min(1, 0.2 + Math.abs(table[i][j])),
      line: { color: table[i][j] > 0 ? "#b2182b" : "#2166ac", width: 4 * Math.min(1, Math.abs(table[i][j])) },
    });
  }));
  traces.push({
    x: order.map((i) => Math.cos(place[i])), y: order.map((i) => Math.sin(place[i])), mode: "markers",
    marker: { size: order.map((i) => 4 + 8 * Math.min(1, table[i][i])), color: order.map((i) => shade(i, order.length)) },
    text: order.map((i) => `feature ${i}: norm ${Math.sqrt(table[i][i]).toFixed(3)}`),
    hovertemplate: "%{text}<extra></extra>",
  });
  const axis = { visible: false, range: [-1.2, 1.2] };
  return [traces, { margin: { l: 4, r: 4, t: 4, b: 4 }, xaxis: axis, yaxis: { ...axis, scaleanchor: "x" } }];
}

function drawFeatures(article, entry, cell) {
  if (!isShown(entry)) return;
  const place = placeOf(entry, cell), count = entry.shape.at(-1);
  plot(article, entry.name, `${entry.label} of each feature`, [{
    type: "bar", y: Array.from(numbers.subarray(place, place + count)), marker: { color: WORDS[0] },
    hovertemplate: "feature %{x}: %{y:.4g}<extra></extra>",
  }], { margin: { l: 44, r: 8, t: 6, b: 24 }, xaxis: { tickformat: "d", dtick: Math.ceil(count / 8) },
    yaxis: { gridcolor: ink("--line"), zerolinecolor: ink("--quiet") } }, "plot low");
}

function drawCurve(article, entry, cell) {
  if (!isShown(entry)) return;
  const along = entry.dims.at(-1), axis = axisOf[along], count = axis.values.length;
  const place = placeOf(entry, { ...cell, [along]: 0 });
  const values = Array.from(numbers.subarray(place, place + count));
  const log = values.every((value) => !(value <= 0));
  plot(article, entry.name, entry.label, [
    { x: axis.values, y: values, mode: "lines", line: { color: WORDS[0] }, hovertemplate: "%{x}: %{y:.4g}<extra></extra>" },
    { x: [axis.values[cell[along]]], y: [values[cell[along]]], mode: "markers", marker: { color: WORDS[4], size: 8 }, hoverinfo: "skip" },
  ], { margin: { l: 52, r: 8, t: 6, b: 40 }, xaxis: { title: { text: plain(axis.label) }, gridcolor: ink("--line") },
    yaxis: { type: log ? "log" : "linear", gridcolor: ink("--line") } });
}

// A button for every seed: a small drawing of its vectors in the colour of its geometry.
function drawSeeds(box, cell) {
  if (!mainModel || !hasAxis(mainModel, SEED) || !isShown(mainModel)) return box.replaceChildren();
  const geometry = description.numbers.find((entry) => entry.name === `geometry of ${mainModel.name}`);
  box.replaceChildren(...axisOf.seed.values.slice(0, 64).map((label, seed) => {
    const there = { ...cell, seed }, number = geometry ? numberAt(geometry, there) : NaN;
    const name = `seed ${label}` + (geometry ? `: ${said(geometry, there)}` : "");
    const colour = Number.isFinite(number) ? WORDS[Math.min(number, WORDS.length - 1)] : ink("--quiet");
    const button = make("button", { type: "button", title: name, onclick: () => seedIsOnMap() ? go({ seed }) : choose({ seed: String(seed) }) },
      mainModel.shape.at(-2) <= 2 ? spokes(matrixAt(mainModel, there), colour)
        : make("span", { textContent: label, style: `color: ${colour}` }));
    button.setAttribute("aria-label", name);
    button.setAttribute("aria-pressed", String(seed === cell.seed));
    return button;
  }));
}

function spokes(matrix, colour) {
  const space = "http://www.w3.org/2000/svg", picture = document.createElementNS(space, "svg");
  picture.setAttribute("viewBox", "-1.3 -1.3 2.6 2.6");
  transpose(matrix).forEach(([x, y = 0]) => {
    const line = document.createElementNS(space, "line");
    for (const [name, value] of Object.entries({ x1: 0, y1: 0, x2: x || 0, y2: -y || 0,
      stroke: colour, "stroke-width": 0.14, "stroke-linecap": "round" })) line.setAttribute(name, value);
    picture.append(line);
  });
  return picture;
}
