"use strict";
// The controls, and what happens when a person uses them.

const byId = (id) => document.getElementById(id);
let playing = null; // the timer of the slider that moves by itself

function fill(id, offered, chosen) {
  byId(id).replaceChildren(...offered.map(([value, label]) =>
    make("option", { value, textContent: label, selected: value === chosen })));
}

// Change the view and draw all of it again.
function choose(change) {
  Object.assign(view, change);
  view.line = "y" in change ? change.y === "" : view.line;
  mend();
  drawControls();
  drawMap();
  drawCells();
}

// Go to another cell: the map stays, but for the frame, unless a slice of it has changed.
function go(change) {
  view.at = { ...view.at, ...change };
  const sameMap = Object.keys(change).every((name) => name === view.x || name === view.y);
  if (sameMap) Plotly.relayout("map", { shapes: marks() });
  else drawMap();
  for (const [name, slider] of Object.entries(sliders)) {
    slider.input.value = view.at[name];
    slider.output.textContent = short(axisOf[name].values[view.at[name]]);
  }
  drawCells();
}

function drawCells() {
  drawCell(byId("here"), view.at, "");
  byId("pinned").hidden = !view.pinned;
  if (view.pinned) drawCell(byId("pinned"), view.pinned, "pinned: ");
  drawFacts();
  byId("said").textContent = `${cellName(withSeed(view.at))}. ` + description.numbers.filter(isShown)
    .slice(0, 6).map((entry) => `${entry.label}: ${said(entry, withSeed(view.at))}`).join("; ");
  writeAddress();
}

function drawControls() {
  const axes = axesOfColour().map((name) => [name, axisOf[name].label]);
  fill("colour", coloursOffered(), view.colour);
  fill("x", axes, view.x);
  fill("y", [["", "(a line)"], ...axes.filter(([name]) => name !== view.x)], view.y);
  fill("seed", seedsOffered(), view.seed);
  byId("seed-choice").hidden = !seedsOffered().length || seedIsOnMap();
  byId("feature-choice").hidden = view.colour !== LEGEND;
  if (mainModel) {
    fill("feature", Array.from({ length: mainModel.shape.at(-1) }, (_, k) => [String(k), String(k)]),
      String(view.feature));
  }
  drawSliders();
}

const sliders = {};

function drawSliders() {
  for (const name of Object.keys(sliders)) delete sliders[name];
  const used = allAxes().filter((axis) => axis.values.length > 1 && axis.name !== SEED
    && (description.inner.includes(axis) ? isUsedInside(axis.name) : relevant(axis.name)));
  byId("sliders").replaceChildren(...used.map((axis) => {
    const input = make("input", { type: "range", min: 0, max: axis.values.length - 1, step: 1,
      value: view.at[axis.name], oninput: () => go({ [axis.name]: Number(input.value) }) });
    const output = make("output", { textContent: short(axis.values[view.at[axis.name]]) });
    input.setAttribute("aria-label", axis.label);
    sliders[axis.name] = { input, output };
    const button = make("button", { type: "button", textContent: "▶", onclick: () => play(axis) });
    button.setAttribute("aria-label", `play along ${axis.label}`);
    return make("label", {}, axis.label, input, output, button);
  }));
}

function isUsedInside(name) {
  return [...description.models, ...description.features, ...description.curves]
    .some((entry) => entry.dims.includes(name) && isShown(entry));
}

// Move a slider from its place to the end, or from the beginning if it is at the end.
function play(axis) {
  if (playing) {
    clearInterval(playing);
    playing = null;
    return;
  }
  const last = axis.values.length - 1;
  if (view.at[axis.name] === last) go({ [axis.name]: 0 });
  playing = setInterval(() => {
    if (view.at[axis.name] >= last) {
      clearInterval(playing);
      playing = null;
    } else go({ [axis.name]: view.at[axis.name] + 1 });
  }, 150);
}

function pin() {
  view.pinned = view.pinned ? null : { ...view.at };
  Plotly.relayout("map", { shapes: marks() });
  drawCells();
}

function walk(event) {
  const steps = { ArrowLeft: [view.x, -1], ArrowRight: [view.x, 1], ArrowDown: [view.y, -1], ArrowUp: [view.y, 1] };
  if (event.key === "p") return pin();
  const [name, step] = steps[event.key] ?? [];
  if (!name) return;
  event.preventDefault();
  // A step goes to the neighbour on the picture, and labels may run downwards.
  const places = scaleOf(axisOf[name]);
  const direction = places.length > 1 && places[0] > places[1] ? -step : step;
  go({ [name]: inRange(view.at[name] + direction, axisOf[name]) });
}

function clicked(event) {
  const point = event.points[0];
  if (Array.isArray(point.pointNumber)) {
    const [row, column] = point.pointNumber;
    go({ [view.x]: column, [view.y]: row });
  } else {
    go({ [view.x]: point.pointNumber });
  }
}

function drawAbout() {
  const line = (text) => make("p", { textContent: text });
  const left = description.left_out.map(([name, why]) => line(`${name} is not shown: ${why}.`));
  const about = Object.entries(description.about).map(([name, value]) => line(`${name}: ${value}`));
  byId("about").replaceChildren(...description.notes.map(line), ...left, ...about);
  byId("details").open = description.notes.length + left.length > 0;
}

async function start() {
  byId("title").textContent = description.title;
  await unpack();
  readAddress();
  for (const id of ["colour", "x", "y", "seed"]) {
    byId(id).addEventListener("change", () => choose({ [id]: byId(id).value }));
  }
  byId("feature").addEventListener("change", () => choose({ feature: Number(byId("feature").value) }));
  drawAbout();
  choose({});
  byId("map").on("plotly_click", clicked);
  byId("map").addEventListener("keydown", walk);
  // A page of its own takes the arrow keys at once; inside a notebook or a site the reader's keys are left alone.
  if (window === window.top) byId("map").focus({ preventScroll: true });
  window.addEventListener("hashchange", () => { readAddress(); choose({}); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => choose({}));
  document.body.dataset.ready = "true";
}

start();
