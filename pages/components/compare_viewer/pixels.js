/*
 * Masks as numbers: figures at a cut-off, the difference in colours, brush and polygon, a mask as PNG. Pure; knows
 * nothing of the page. No canvas is ever read back: some browsers answer that with noise.
 */

async function through(bytes, stream) {
  return new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer());
}

const inflate = (bytes) => through(bytes, new DecompressionStream("deflate"));
const deflate = (bytes) => through(bytes, new CompressionStream("deflate"));

/** Eight pixels a byte, the highest bit first, as numpy's `packbits`. */
function unpackBits(packed, length) {
  const mask = new Uint8Array(length);
  for (let i = 0; i < length; i += 1) mask[i] = (packed[i >> 3] >> (7 - (i & 7))) & 1;
  return mask;
}

function packBits(mask) {
  const packed = new Uint8Array(Math.ceil(mask.length / 8));
  for (let i = 0; i < mask.length; i += 1) if (mask[i]) packed[i >> 3] |= 128 >> (i & 7);
  return packed;
}

/** For each cut-off, how many pixels reach it inside the truth and outside: what `overlap_curve` counts in Python. */
function countReached(index, truth, cutoffs) {
  const hit = new Float64Array(cutoffs + 1);
  const extra = new Float64Array(cutoffs + 1);
  for (let i = 0; i < index.length; i += 1) (truth[i] ? hit : extra)[index[i]] += 1;
  for (let k = cutoffs - 1; k >= 0; k -= 1) {
    hit[k] += hit[k + 1];
    extra[k] += extra[k + 1];
  }
  return { lesion: hit[0], rest: extra[0], hit: hit.subarray(1), extra: extra.subarray(1) }; // at place k: index above k
}

function countsAt({ lesion, hit, extra }, place) {
  return { hit: hit[place], extra: extra[place], missed: lesion - hit[place] };
}

/** Counts of two masks. */
function countMasks(mask, truth) {
  const counts = { hit: 0, extra: 0, missed: 0 };
  for (let i = 0; i < mask.length; i += 1) {
    if (mask[i]) counts[truth[i] ? "hit" : "extra"] += 1;
    else if (truth[i]) counts.missed += 1;
  }
  return counts;
}

/** NaN where a figure is not defined, as `OverlapCounts` in Python. */
function figuresOf({ hit, extra, missed }) {
  return {
    dice: (2 * hit) / (2 * hit + extra + missed),
    iou: hit / (hit + extra + missed),
    precision: hit / (hit + extra),
    recall: hit / (hit + missed),
  };
}

/** "#rrggbb" and an opacity as one pixel of a Uint32Array over ImageData. */
function pixelOf(colour, opacity) {
  const channel = (at) => parseInt(colour.slice(at, at + 2), 16);
  const bytes = new Uint8Array([channel(1), channel(3), channel(5), Math.round(255 * opacity)]);
  return new Uint32Array(bytes.buffer)[0];
}

/** Colour pixels by what they are: [neither, only truth, only prediction, both]. What one of them has alone is striped,
 * the truth's like "/" and the prediction's like "\", so that nobody must tell colours apart. */
function paintDifference(index, place, truth, width, { plain, stripe }, pixels) {
  const period = Math.max(4, Math.round(width / 64));
  const height = pixels.length / width;
  for (let row = 0, i = 0; row < height; row += 1) {
    for (let column = 0; column < width; column += 1, i += 1) {
      const what = (index[i] > place ? 2 : 0) + truth[i];
      const across = what === 1 ? column + row : column - row + height;
      pixels[i] = (across % period < period / 4 ? stripe : plain)[what];
    }
  }
}

// ---- editing: every change is a rectangle of pixels before and after, so that it can be undone ----------------------

/** Set a disk of pixels whose centres lie within `radius` of (x, y). */
function stampDisk(mask, width, height, x, y, radius, value) {
  const top = Math.max(0, Math.ceil(y - radius - 0.5));
  const bottom = Math.min(height - 1, Math.floor(y + radius - 0.5));
  for (let row = top; row <= bottom; row += 1) {
    const half = Math.sqrt(Math.max(0, radius * radius - (row + 0.5 - y) ** 2));
    const left = Math.max(0, Math.ceil(x - half - 0.5));
    const right = Math.min(width - 1, Math.floor(x + half - 0.5));
    if (left <= right) mask.fill(value, row * width + left, row * width + right + 1);
  }
}

/** A stroke from one point to another: disks a quarter of a radius apart. */
function stampLine(mask, width, height, from, to, radius, value) {
  const steps = Math.max(1, Math.ceil(Math.hypot(to.x - from.x, to.y - from.y) / Math.max(0.5, radius / 4)));
  for (let step = 0; step <= steps; step += 1) {
    const share = step / steps;
    stampDisk(mask, width, height, from.x + (to.x - from.x) * share, from.y + (to.y - from.y) * share, radius, value);
  }
}

/** Set the pixels whose centres lie inside a polygon (even-odd). */
function fillPolygon(mask, width, height, points, value) {
  for (let row = 0; row < height; row += 1) {
    const y = row + 0.5;
    const crossings = [];
    points.forEach((a, i) => {
      const b = points[(i + 1) % points.length];
      if (a.y <= y !== b.y <= y) crossings.push(a.x + ((y - a.y) / (b.y - a.y)) * (b.x - a.x));
    });
    crossings.sort((a, b) => a - b);
    for (let i = 0; i + 1 < crossings.length; i += 2) {
      const left = Math.max(0, Math.ceil(crossings[i] - 0.5));
      const right = Math.min(width, Math.ceil(crossings[i + 1] - 0.5));
      if (left < right) mask.fill(value, row * width + left, row * width + right);
    }
  }
}

/** The rectangle in which two masks differ, with the pixels of both; null when they are the same. */
function difference(before, after, width) {
  let [left, top, right, bottom] = [width, -1, -1, -1];
  for (let i = 0; i < before.length; i += 1) {
    if (before[i] === after[i]) continue;
    const column = i % width;
    if (top < 0) top = (i - column) / width;
    bottom = (i - column) / width;
    if (column < left) left = column;
    if (column > right) right = column;
  }
  if (top < 0) return null;
  const box = { left, top, width: right - left + 1, height: bottom - top + 1 };
  return { ...box, before: cut(before, width, box), after: cut(after, width, box) };
}

function cut(mask, width, box) {
  const part = new Uint8Array(box.width * box.height);
  for (let row = 0; row < box.height; row += 1) {
    const at = (box.top + row) * width + box.left;
    part.set(mask.subarray(at, at + box.width), row * box.width);
  }
  return part;
}

function paste(mask, width, box, part) {
  for (let row = 0; row < box.height; row += 1) {
    mask.set(part.subarray(row * box.width, (row + 1) * box.width), (box.top + row) * width + box.left);
  }
}

// ---- PNG (ISO/IEC 15948): 8-bit grey, 0 and 255, pixels and nothing else ----------------------------------------------

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let k = 0; k < 8; k += 1) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1;
  return c;
});

function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = CRC_TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

function chunk(kind, content) {
  const bytes = new Uint8Array(12 + content.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, content.length);
  bytes.set(new TextEncoder().encode(kind), 4);
  bytes.set(content, 8);
  view.setUint32(8 + content.length, crc32(bytes.subarray(4, 8 + content.length)));
  return bytes;
}

async function maskPng(mask, width, height) {
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header.set([8, 0, 0, 0, 0], 8); // 8 bits, grey, deflate, filters by row, not interlaced
  const rows = new Uint8Array((width + 1) * height); // each row begins with its filter, 0: none
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) rows[y * (width + 1) + 1 + x] = mask[y * width + x] ? 255 : 0;
  }
  const signature = new Uint8Array([137, 80, 78, 71, 13, 10, 26, 10]);
  return new Blob([signature, chunk("IHDR", header), chunk("IDAT", await deflate(rows)), chunk("IEND", new Uint8Array())], {
    type: "image/png",
  });
}

/** Bytes as base64, in pieces that the argument list can hold. */
function base64(bytes) {
  let text = "";
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return btoa(text);
}
