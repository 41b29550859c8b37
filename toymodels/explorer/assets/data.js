"use strict";
// The numbers of the page, and the arithmetic on ONE model. A cell is an object that gives the
// index on every axis by name, such as {density: 3, importance: 0, seed: 2}.

const description = JSON.parse(document.getElementById("description").textContent);
const axisOf = Object.fromEntries(
  [...description.axes, ...description.inner].map((axis) => [axis.name, axis]));
const bestBy = description.numbers.find((entry) => entry.name === description.best_by);
let numbers; // Float32Array of all variables, one after another

async function unpack() {
  const text = atob(document.getElementById("numbers").textContent);
  const packed = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  numbers = new Float32Array(await new Response(stream).arrayBuffer());
}

// The place of a cell in a variable; its inner dimensions are at 0.
function placeOf(entry, cell) {
  let place = 0;
  entry.dims.forEach((dim, position) => {
    const index = dim in axisOf ? cell[dim] ?? 0 : 0;
    place = place * entry.shape[position] + index;
  });
  return entry.offset + place;
}

function numberAt(entry, cell) {
  return numbers[placeOf(entry, cell)];
}

// The weights of a model as rows of numbers: hidden x features.
function matrixAt(entry, cell) {
  const [rows, columns] = entry.shape.slice(-2);
  const place = placeOf(entry, cell);
  return Array.from({ length: rows }, (_, row) =>
    Array.from(numbers.subarray(place + row * columns, place + (row + 1) * columns)));
}

// The seed of a cell with the lowest loss, or 0 if every seed diverged.
function bestSeed(cell) {
  const count = axisOf.seed.values.length;
  let best = 0, lowest = Infinity;
  for (let seed = 0; seed < count; seed++) {
    const loss = numberAt(bestBy, { ...cell, seed });
    if (loss < lowest) [best, lowest] = [seed, loss];
  }
  return best;
}

function meanOverSeeds(entry, cell) {
  const count = axisOf.seed.values.length;
  let sum = 0;
  for (let seed = 0; seed < count; seed++) sum += numberAt(entry, { ...cell, seed });
  return sum / count;
}

const transpose = (matrix) => matrix[0].map((_, column) => matrix.map((row) => row[column]));
const dot = (a, b) => a.reduce((sum, value, index) => sum + value * b[index], 0);

function gram(matrix) {
  const columns = transpose(matrix);
  return columns.map((one) => columns.map((other) => dot(one, other)));
}

// D_i = |W_i|^2 / sum_j (W_i/|W_i| . W_j)^2, and 0 for a feature without direction.
function dimensionality(matrix) {
  return gram(matrix).map((row, i) => {
    const squared = row[i];
    const shared = row.reduce((sum, overlap) => sum + overlap * overlap, 0);
    return squared > 0 ? (squared * squared) / shared : 0;
  });
}

// The norm of a feature, and sum_(j != i) (W_i/|W_i| . W_j)^2, which is its superposition.
function normAndSuperposition(matrix, feature) {
  const row = gram(matrix)[feature];
  const squared = row[feature];
  const others = row.reduce((sum, overlap, j) => sum + (j === feature ? 0 : overlap * overlap), 0);
  return [Math.sqrt(squared), squared > 0 ? others / squared : 0];
}

// Features in an order in which those of one component of the interference graph are neighbours.
function byComponent(matrix) {
  const table = gram(matrix);
  const joined = (i, j) =>
    Math.abs(table[i][j]) > 0.1 * Math.sqrt(table[i][i] * table[j][j]) && table[i][j] !== 0;
  const left = new Set(table.keys());
  const order = [];
  for (const first of table.keys()) {
    const waiting = [first];
    while (waiting.length) {
      const feature = waiting.pop();
      if (!left.delete(feature)) continue;
      order.push(feature);
      waiting.push(...[...left].filter((other) => joined(feature, other)).reverse());
    }
  }
  return order;
}
