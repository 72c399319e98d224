/*
 * Maps as numbers: upsampling, outlines at a cut-off, colours. Pure; knows nothing of the page.
 * The scripts of this folder are joined into one module (viewer.py), so they share their names.
 */

/** Where torch's bilinear `align_corners=False` looks for each output pixel: lower index, upper index, upper weight. */
function taps(from, to) {
  const low = new Int32Array(to);
  const high = new Int32Array(to);
  const weight = new Float64Array(to);
  const scale = Math.fround(from / to); // places are rounded to float32, as in torch
  for (let i = 0; i < to; i += 1) {
    const at = Math.max(0, Math.fround(Math.fround(scale * (i + 0.5)) - 0.5));
    low[i] = Math.min(Math.floor(at), from - 1);
    high[i] = Math.min(low[i] + 1, from - 1);
    weight[i] = at - low[i];
  }
  return { low, high, weight };
}

/** (rows, columns) -> (height, width): half-pixel centres, clamped edges; equal to `preprocess.upsample` in Python. */
export function upsample(values, rows, columns, height, width) {
  const result = new Float32Array(height * width);
  const across = taps(columns, width);
  const down = taps(rows, height);
  for (let y = 0; y < height; y += 1) {
    const upper = down.low[y] * columns;
    const lower = down.high[y] * columns;
    const share = down.weight[y];
    for (let x = 0; x < width; x += 1) {
      const left = across.low[x];
      const right = across.high[x];
      const part = across.weight[x];
      const above = values[upper + left] * (1 - part) + values[upper + right] * part;
      const below = values[lower + left] * (1 - part) + values[lower + right] * part;
      result[y * width + x] = above * (1 - share) + below * share;
    }
  }
  return result;
}

const TILE = 16; // cells a side; tiles that a cut-off does not cross are skipped
const OUTSIDE = -1; // a rim around the map, so that an outline closes along the image's edge

/** Prepare a map for outlines: a rim of one cell, and the range of each tile. */
export function makeField(values, height, width) {
  const columns = width + 2;
  const rows = height + 2;
  const padded = new Float32Array(columns * rows).fill(OUTSIDE);
  for (let y = 0; y < height; y += 1) {
    padded.set(values.subarray(y * width, (y + 1) * width), (y + 1) * columns + 1);
  }
  const across = Math.ceil((columns - 1) / TILE);
  const down = Math.ceil((rows - 1) / TILE);
  const low = new Float32Array(across * down);
  const high = new Float32Array(across * down);
  for (let tile = 0; tile < low.length; tile += 1) {
    const left = (tile % across) * TILE;
    const top = Math.floor(tile / across) * TILE;
    let least = Infinity;
    let most = -Infinity;
    for (let y = top; y <= Math.min(top + TILE, rows - 1); y += 1) {
      for (let x = left; x <= Math.min(left + TILE, columns - 1); x += 1) {
        const value = padded[y * columns + x];
        if (value < least) least = value;
        if (value > most) most = value;
      }
    }
    low[tile] = least;
    high[tile] = most;
  }
  const next = new Int32Array(2 * columns * rows).fill(-1);
  return { values, padded, columns, rows, across, low, high, next };
}

/** How many pixels reach the cut-off. */
export function countAbove(values, cutoff) {
  const limit = Math.fround(cutoff); // as numpy compares float32 with a Python number
  let count = 0;
  for (let i = 0; i < values.length; i += 1) count += values[i] >= limit ? 1 : 0;
  return count;
}

// Marching squares. Corners that reach the cut-off, as bits: top left 8, top right 4, bottom right 2, bottom left 1.
// Sides: 0 top, 1 right, 2 bottom, 3 left. Each pair is (from, to) with the inside on the right hand, so that the
// side where one cell's outline ends is where its neighbour's begins.
const SEGMENTS = [
  [], [3, 2], [2, 1], [3, 1], [1, 0], [1, 0, 3, 2], [2, 0], [3, 0],
  [0, 3], [0, 2], [0, 3, 2, 1], [0, 1], [1, 3], [1, 2], [2, 3], [],
];
const JOINED = { 5: [3, 0, 1, 2], 10: [0, 1, 2, 3] }; // saddles whose middle reaches the cut-off

/** Closed outlines of `map >= cutoff` in pixels (pixel i covers [i, i + 1]): a list of [x0, y0, x1, y1, ...]. */
export function outlines(field, cutoff) {
  const limit = Math.fround(cutoff);
  const { columns, rows, next } = field;
  const starts = [];
  for (let tile = 0; tile < field.low.length; tile += 1) {
    if (field.low[tile] >= limit || field.high[tile] < limit) continue;
    const left = (tile % field.across) * TILE;
    const top = Math.floor(tile / field.across) * TILE;
    const right = Math.min(left + TILE, columns - 1);
    const bottom = Math.min(top + TILE, rows - 1);
    for (let y = top; y < bottom; y += 1) {
      for (let x = left; x < right; x += 1) linkCell(field, y * columns + x, limit, starts);
    }
  }
  const loops = [];
  for (const start of starts) {
    const loop = [];
    let edge = start;
    while (next[edge] >= 0) {
      pushCrossing(field, edge, limit, loop);
      const following = next[edge];
      next[edge] = -1;
      edge = following;
    }
    if (loop.length) loops.push(loop);
  }
  return loops;
}

function linkCell({ padded, columns, next }, at, limit, starts) {
  const a = padded[at];
  const b = padded[at + 1];
  const c = padded[at + columns + 1];
  const d = padded[at + columns];
  const code = (a >= limit ? 8 : 0) | (b >= limit ? 4 : 0) | (c >= limit ? 2 : 0) | (d >= limit ? 1 : 0);
  if (code === 0 || code === 15) return;
  const saddle = code === 5 || code === 10;
  const segments = saddle && (a + b + c + d) / 4 >= limit ? JOINED[code] : SEGMENTS[code];
  for (let i = 0; i < segments.length; i += 2) {
    const from = edgeOf(at, segments[i], columns);
    next[from] = edgeOf(at, segments[i + 1], columns);
    starts.push(from);
  }
}

/** An edge of the grid as one number: even ones run right from a corner, odd ones down. */
function edgeOf(at, side, columns) {
  if (side === 0) return 2 * at;
  if (side === 1) return 2 * (at + 1) + 1;
  if (side === 2) return 2 * (at + columns);
  return 2 * at + 1;
}

function pushCrossing({ padded, columns }, edge, limit, loop) {
  const at = edge >> 1;
  const vertical = edge & 1;
  const from = padded[at];
  const to = padded[at + (vertical ? columns : 1)];
  const onRim = from === OUTSIDE || to === OUTSIDE;
  const share = onRim ? 0.5 : (limit - from) / (to - from);
  const x = at % columns;
  const y = (at - x) / columns;
  loop.push(x - 0.5 + (vertical ? 0 : share), y - 0.5 + (vertical ? share : 0));
}

// Perceptually ordered: equal steps look equal, and grey prints keep the order.
export const VIRIDIS = ["#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725"];
export const INFERNO = ["#4a0c6b", "#781c6d", "#a52c60", "#cf4446", "#ed6925", "#fb9b06", "#f7d13d", "#fcffa4"]; // its dark foot left out

/** 256 colours as RGBA bytes packed for a Uint32Array over ImageData. */
export function colourTable(stops) {
  const table = new Uint32Array(256);
  const bytes = new Uint8Array(table.buffer);
  const channel = (stop, index) => parseInt(stop.slice(1 + 2 * index, 3 + 2 * index), 16);
  for (let i = 0; i < 256; i += 1) {
    const at = (i / 255) * (stops.length - 1);
    const low = Math.min(Math.floor(at), stops.length - 2);
    for (let k = 0; k < 3; k += 1) {
      bytes[4 * i + k] = Math.round(channel(stops[low], k) * (low + 1 - at) + channel(stops[low + 1], k) * (at - low));
    }
    bytes[4 * i + 3] = 255;
  }
  return table;
}

/** Colour every pixel by its own value; below `floor` nothing is drawn. `pixels` is a Uint32Array over ImageData. */
export function colourise(values, table, floor, pixels) {
  for (let i = 0; i < values.length; i += 1) {
    pixels[i] = values[i] >= floor ? table[Math.min(255, Math.round(values[i] * 255))] : 0;
  }
}
