"use strict";
// The view: what the page shows. It lives in the address after "#", so a view is a link.

const view = { colour: "", x: "", y: "", seed: "", feature: 0, at: {}, pinned: null };
const SEED = "seed";

// Choices of the colour that are computed here and are no variable.
const LEGEND = "norm and superposition";
const mainModel = description.models.find((entry) => entry.name === "weights")
  ?? description.models[0];

function colourEntry() {
  return description.numbers.find((entry) => entry.name === view.colour);
}

// The axes of whatever gives the colour.
function axesOfColour() {
  const entry = view.colour === LEGEND ? mainModel : colourEntry();
  return entry.dims.filter((dim) => description.axes.some((axis) => axis.name === dim));
}

const seedIsOnMap = () => view.x === SEED || view.y === SEED;

// The seed that stands for a cell: that of its place on the map, a chosen one, or the best.
function withSeed(cell) {
  if (!(SEED in axisOf) || seedIsOnMap()) return cell;
  const seed = /^\d+$/.test(view.seed) ? Number(view.seed) : bestBy ? bestSeed(cell) : 0;
  return { ...cell, seed };
}

function hasAxis(entry, name) {
  return entry.dims.includes(name);
}

const inRange = (index, axis) => Math.min(Math.max(index | 0, 0), axis.values.length - 1);

// A view that names axes, colours or cells that these results do not have is mended.
function mend() {
  const colours = coloursOffered().map(([name]) => name);
  if (!colours.includes(view.colour)) {
    const named = description.numbers.find((entry) => entry.labels);
    const widest = description.numbers.reduce((a, b) => b.dims.length > a.dims.length ? b : a);
    view.colour = (named ?? widest).name;
  }
  const axes = axesOfColour();
  const wide = axes.filter((dim) => dim !== SEED).concat(axes.includes(SEED) ? [SEED] : []);
  if (!axes.includes(view.x)) view.x = wide[0];
  if (view.y === view.x || (view.y && !axes.includes(view.y))) view.y = "";
  if (view.y === "" && !view.line) {
    const words = colourEntry()?.labels && axes.includes(SEED) ? SEED : "";
    view.y = wide.find((dim) => dim !== view.x && dim !== SEED) ?? words;
  }
  const seeds = seedsOffered().map(([value]) => value);
  if (!seeds.includes(view.seed)) view.seed = seeds[0] ?? "";
  const features = mainModel ? mainModel.shape.at(-1) : 1;
  view.feature = Math.min(Math.max(view.feature | 0, 0), features - 1);
  for (const axis of Object.values(axisOf)) {
    const middle = axis.name === SEED ? 0 : description.inner.includes(axis)
      ? axis.values.length - 1 : axis.values.length >> 1;
    view.at[axis.name] = inRange(view.at[axis.name] ?? middle, axis);
  }
}

function coloursOffered() {
  const offered = description.numbers.map((entry) => [entry.name, entry.label]);
  if (mainModel && axesOfModel().length) offered.push([LEGEND, LEGEND + " of a feature"]);
  return offered;
}

function axesOfModel() {
  return mainModel.dims.filter((dim) => description.axes.some((axis) => axis.name === dim));
}

function seedsOffered() {
  if (!(SEED in axisOf)) return [];
  const best = bestBy ? [["best", `best by ${bestBy.name}`]] : [];
  const each = axisOf.seed.values.map((label, index) => [String(index), `seed ${label}`]);
  return [...best, ["mean", "mean of all (map)"], ...each];
}

function readAddress() {
  const words = new URLSearchParams(location.hash.slice(1));
  for (const name of ["colour", "x", "y", "seed"]) view[name] = words.get(name) ?? "";
  view.line = words.has("y") && words.get("y") === "";
  view.feature = Number(words.get("feature") ?? (mainModel ? mainModel.shape.at(-1) - 1 : 0));
  view.at = cellFrom(words.get("at")) ?? {};
  view.pinned = cellFrom(words.get("pinned"));
  mend();
  if (view.pinned) {
    for (const axis of Object.values(axisOf)) {
      view.pinned[axis.name] = inRange(view.pinned[axis.name] ?? 0, axis);
    }
  }
}

// A cell is written as indices in the order of the axes, such as 3.0.2
const allAxes = () => [...description.axes, ...description.inner];
const cellText = (cell) => allAxes().map((axis) => cell[axis.name]).join(".");
function cellFrom(text) {
  if (!/^\d+(\.\d+)*$/.test(text ?? "")) return null;
  const indices = text.split(".").map(Number);
  return Object.fromEntries(allAxes().map((axis, k) => [axis.name, indices[k] ?? 0]));
}

function writeAddress() {
  const words = new URLSearchParams({
    colour: view.colour, x: view.x, y: view.y, seed: view.seed, feature: view.feature,
    at: cellText(view.at),
  });
  if (view.pinned) words.set("pinned", cellText(view.pinned));
  try {
    history.replaceState(null, "", `#${words}`);
  } catch {
    // A frame without an address of its own, as in a notebook, cannot hold a link.
  }
}
