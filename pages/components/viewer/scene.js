/*
 * A message from Python (viewer.py) -> a scene: header, scan pixels, and maps upsampled when first needed.
 */

const PROBABILITY_FLOOR = 0.01; // below 1 % the probability layer stays clear
const DIM_BELOW_SCORE = 0.05; // a heat map is stretched to its own peak: one of an unlikely class is dimmed

/** Read the message: 4 bytes viewer height, 4 bytes header length, header, blobs. */
export function openMessage(bytes) {
  const numbers = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const start = 8 + numbers.getUint32(4, true);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, start)));
  const blob = ({ offset, length }) => bytes.slice(start + offset, start + offset + length);
  const floats = (place) => new Float32Array(blob(place).buffer);
  return { height: numbers.getUint32(0, true), header, blob, floats };
}

/** One scan as the panes draw it. */
class Scene {
  static async from({ header, blob, floats }) {
    const png = new Blob([blob(header.scan)], { type: "image/png" });
    const bitmap = await createImageBitmap(png, { colorSpaceConversion: "none" });
    return new Scene(header, bitmap, floats(header.probability), header.heatmaps.map(floats));
  }

  constructor(header, bitmap, probability, evidence) {
    this.header = header;
    this.bitmap = bitmap;
    this.width = header.grid_width;
    this.height = header.grid_height;
    this.probability = this.layer(header.probability, probability, VIRIDIS, PROBABILITY_FLOOR);
    this.evidence = evidence;
    this.heat = new Map();
  }

  isSameAs(header) {
    return this.header.scan_id === header.scan_id && this.header.content === header.content;
  }

  /** The map on the viewer's grid with its outlines-to-be, and its colours painted once. */
  layer({ rows, columns }, values, stops, floor) {
    const full = upsample(values, rows, columns, this.height, this.width);
    const canvas = document.createElement("canvas");
    canvas.width = this.width;
    canvas.height = this.height;
    const context = canvas.getContext("2d");
    const image = context.createImageData(this.width, this.height);
    colourise(full, colourTable(stops), floor, new Uint32Array(image.data.buffer));
    context.putImageData(image, 0, 0);
    return { field: makeField(full, this.height, this.width), canvas };
  }

  heatmap(of) {
    return this.header.heatmaps.find((heatmap) => heatmap.of === of);
  }

  heatLayer(of) {
    const index = this.header.heatmaps.findIndex((heatmap) => heatmap.of === of);
    if (index < 0) return null;
    if (!this.heat.has(of)) this.heat.set(of, this.layer(this.header.heatmaps[index], this.evidence[index], INFERNO, 0));
    return this.heat.get(of);
  }

  /** Which heat map to offer first: that of the class. */
  likeliest() {
    return this.header.heat_first ?? this.header.heatmaps[0]?.of ?? null;
  }

  lesionShare(cutoff) {
    return countAbove(this.probability.field.values, cutoff) / (this.width * this.height);
  }

  probabilityAt(x, y) {
    if (x < 0 || y < 0 || x >= this.width || y >= this.height) return null;
    return this.probability.field.values[Math.floor(y) * this.width + Math.floor(x)];
  }

  close() {
    this.bitmap.close();
  }
}

/** Outlines as a path in grid pixels. */
function pathAt(field, cutoff) {
  const path = new Path2D();
  for (const loop of outlines(field, cutoff)) {
    path.moveTo(loop[0], loop[1]);
    for (let i = 2; i < loop.length; i += 2) path.lineTo(loop[i], loop[i + 1]);
    path.closePath();
  }
  return path;
}
