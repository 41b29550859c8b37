"use strict";
// The map: one rectangle for each cell, or one line of dots where there is one axis.

const WORDS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#666666"];
const VALUES = [[0, "#f3f6fa"], [0.25, "#a9c4e0"], [0.5, "#4f86bd"], [0.75, "#1d4f8c"], [1, "#0b2447"]];
const SIGNED = [[0, "#2166ac"], [0.5, "#f2f2f2"], [1, "#b2182b"]];
const STEPS = 12; // colours of the two-dimensional legend along each side
const QUIET = { displayModeBar: false, responsive: true };

// Plotly reads a little HTML in its texts; a name must stay a name.
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

function short(value) {
  if (typeof value !== "number") return String(value);
  if (!Number.isFinite(value)) return "missing";
  return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(4)));
}

const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function layout(extra) {
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false,
    font: { color: ink("--ink"), size: 12, family: "system-ui, sans-serif" },
    margin: { l: 56, r: 12, t: 10, b: 44 }, hovermode: "closest", dragmode: false, ...extra,
  };
}

// Positions of the labels of an axis: their logarithms if they are positive and span a factor of
// ten or more, themselves if they are numbers, or else 0, 1, 2, ...
function scaleOf(axis) {
  const values = axis.values;
  const ordered = axis.numeric && values.every((value, k) => !k || value > values[k - 1]);
  const reversed = axis.numeric && values.every((value, k) => !k || value < values[k - 1]);
  if (!ordered && !reversed) return values.map((_, k) => k);
  const low = Math.min(...values), high = Math.max(...values);
  return low > 0 && high / low >= 10 ? values.map(Math.log10) : values.slice();
}

function edgesOf(places) {
  if (places.length === 1) return [places[0] - 0.5, places[0] + 0.5];
  const inside = places.slice(1).map((place, k) => (place + places[k]) / 2);
  return [2 * places[0] - inside[0], ...inside, 2 * places.at(-1) - inside.at(-1)];
}

function drawnAxis(name) {
  const axis = axisOf[name], places = scaleOf(axis);
  const shown = places.map((_, k) => k).filter((k) => k % Math.ceil(places.length / 6) === 0);
  return {
    title: { text: plain(axis.label), standoff: 6 }, tickvals: shown.map((k) => places[k]),
    ticktext: shown.map((k) => plain(axis.numeric ? short(Number(axis.values[k].toPrecision(2))) : axis.values[k])),
    zeroline: false, gridcolor: ink("--line"), fixedrange: true,
  };
}

// The value of the colour in a cell, whatever it is.
function colourAt(cell) {
  if (view.colour === LEGEND) {
    const [norm, shared] = normAndSuperposition(matrixAt(mainModel, withSeed(cell)), view.feature);
    if (!Number.isFinite(norm) || !Number.isFinite(shared)) return NaN;
    const step = (value) => Math.min(Math.floor(value * STEPS), STEPS - 1);
    return step(shared) * STEPS + step(norm);
  }
  const entry = colourEntry();
  if (!hasAxis(entry, SEED) || seedIsOnMap()) return numberAt(entry, cell);
  return view.seed === "mean" && !entry.labels
    ? meanOverSeeds(entry, cell) : numberAt(entry, withSeed(cell));
}

// The paper's colours: grey without norm, blue alone, red in superposition.
function legendColour(norm, shared) {
  const mix = (a, b, t) => a.map((value, k) => value + (b[k] - value) * t);
  const full = mix([0, 51, 153], [221, 68, 68], shared);
  return `rgb(${mix([221, 221, 221], full, norm).map(Math.round)})`;
}

// The colours of the map: a scale, its limits, and what the legend says.
function colours(values) {
  const steps = (list) => list.flatMap((colour, k) =>
    [[k / list.length, colour], [(k + 1) / list.length, colour]]);
  if (view.colour === LEGEND) {
    const list = Array.from({ length: STEPS * STEPS }, (_, k) =>
      legendColour((k % STEPS + 0.5) / STEPS, (Math.floor(k / STEPS) + 0.5) / STEPS));
    return { colorscale: steps(list), zmin: -0.5, zmax: list.length - 0.5, showscale: false };
  }
  const labels = colourEntry().labels;
  if (labels) {
    const list = labels.map((_, k) => WORDS[Math.min(k, WORDS.length - 1)]);
    return { colorscale: steps(list), zmin: -0.5, zmax: list.length - 0.5, showscale: false };
  }
  const known = values.flat().filter(Number.isFinite);
  const low = known.reduce((a, b) => Math.min(a, b), Infinity);
  const high = known.reduce((a, b) => Math.max(a, b), -Infinity);
  const limit = Math.max(-low, high);
  const scale = low < 0 && high > 0
    ? { colorscale: SIGNED, zmin: -limit, zmax: limit } : { colorscale: VALUES, zmin: low, zmax: high };
  return { ...scale, colorbar: { thickness: 12, outlinewidth: 0, title: { text: "" } } };
}

function drawMap() {
  const indices = (name) => axisOf[name].values.map((_, k) => k);
  const across = indices(view.x);
  const rows = view.y ? indices(view.y).map((row) =>
    across.map((k) => colourAt({ ...view.at, [view.x]: k, [view.y]: row }))) : null;
  const picture = rows ? heatMap(rows) : dots(across);
  Plotly.react("map", picture.traces, layout({ ...picture.layout, shapes: marks() }), QUIET);
  drawLegend();
}

function heatMap(rows) {
  const trace = {
    type: "heatmap", x: edgesOf(scaleOf(axisOf[view.x])), y: edgesOf(scaleOf(axisOf[view.y])),
    z: rows, hoverongaps: false, hoverinfo: "none", ...colours(rows),
  };
  return { traces: [trace], layout: { xaxis: drawnAxis(view.x), yaxis: drawnAxis(view.y) } };
}

// One axis: a dot for every seed, and a line for the choice of seeds.
function dots(across) {
  const places = scaleOf(axisOf[view.x]);
  const entry = view.colour === LEGEND ? null : colourEntry();
  const line = across.map((k) => colourAt({ ...view.at, [view.x]: k }));
  const traces = [{ x: places, y: line, mode: "lines+markers", line: { color: WORDS[0] }, hoverinfo: "none" }];
  if (entry && hasAxis(entry, SEED) && view.x !== SEED) {
    axisOf.seed.values.forEach((_, seed) => traces.push({
      x: places, y: across.map((k) => numberAt(entry, { ...view.at, [view.x]: k, seed })),
      mode: "markers", marker: { color: ink("--quiet"), size: 4, opacity: 0.6 }, hoverinfo: "none",
    }));
  }
  const label = entry ? entry.label : LEGEND, words = entry?.labels;
  return { traces, layout: {
    xaxis: drawnAxis(view.x),
    yaxis: {
      title: { text: plain(label) }, gridcolor: ink("--line"), zeroline: false, fixedrange: true,
      automargin: true, ...(words ? { tickvals: words.map((_, k) => k), ticktext: words.map(plain) } : {}),
    },
  } };
}

// Frames around the chosen cell and the pinned one.
function marks() {
  const frame = (cell, colour, dash) => {
    const x = edgesOf(scaleOf(axisOf[view.x])), k = cell[view.x];
    const y = view.y ? edgesOf(scaleOf(axisOf[view.y])) : null, row = cell[view.y];
    return {
      type: "rect", x0: x[k], x1: x[k + 1], line: { color: colour, width: 3, dash },
      ...(y ? { y0: y[row], y1: y[row + 1] } : { yref: "paper", y0: 0, y1: 1 }),
    };
  };
  const chosen = [frame(view.at, ink("--ink"), "solid")];
  return view.pinned ? [...chosen, frame(view.pinned, "#D55E00", "dot")] : chosen;
}

function drawLegend() {
  const legend = document.getElementById("legend");
  const item = (colour, text) => {
    const box = document.createElement("span"), patch = document.createElement("i");
    patch.style.background = colour;
    box.append(patch, text);
    return box;
  };
  if (view.colour === LEGEND) {
    legend.replaceChildren(
      item(legendColour(0, 0), "not represented"), item(legendColour(1, 0), "a dimension of its own"),
      item(legendColour(1, 0.5), "half in superposition"), item(legendColour(1, 1), "in superposition"));
  } else {
    const labels = colourEntry().labels ?? [];
    const shown = labels.slice(0, WORDS.length - 1).map((label, k) => item(WORDS[k], label));
    const rest = labels.length - shown.length;
    if (rest === 1) shown.push(item(WORDS.at(-1), labels.at(-1)));
    if (rest > 1) shown.push(item(WORDS.at(-1), `${rest} others`));
    legend.replaceChildren(...shown);
  }
}
