/*
 * A message from Python (compare_viewer.py) -> one case: scan, truth, one or two readings, and how they are drawn.
 * `openMessage`, `makeField`, `pathAt` and the colours come from the viewer's scripts.
 */

const TRUTH_COLOUR = "#ffd24d";
const EDITED_COLOUR = "#7ee787";
const DIFFERENCE_COLOURS = { missed: "#ffb000", extra: "#dc267f", agreed: "#648fff" }; // told apart without red or green
const DIFFERENCE_OPACITY = 0.5;
const STRIPE_OPACITY = 1;
const FILL_OPACITY = 0.18;
const HEAT_CUTOFF = 0.3; // as the viewer's: below it is mostly the map's floor
const HEAT_OPACITY = 0.6;

/** What one model version says about the scan, on the case's grid. */
class Reading {
  static async from(header, grid, { blob, floats }) {
    const index = await inflate(blob(header.index));
    return new Reading(header, grid, index, header.heatmaps.map(floats));
  }

  constructor(header, grid, index, evidence) {
    this.header = header;
    this.grid = grid;
    this.index = index;
    this.evidence = evidence;
    this.field = makeField(index, grid.height, grid.width);
    this.heat = new Map();
  }

  /** Which of the cut-offs lies nearest. */
  placeOf(cutoff) {
    let best = 0;
    this.header.cutoffs.forEach((one, place, all) => {
      if (Math.abs(one - cutoff) < Math.abs(all[best] - cutoff)) best = place;
    });
    return best;
  }

  pathAt(place) {
    if (this.path?.place !== place) this.path = { place, path: pathAt(this.field, place + 0.5) };
    return this.path.path;
  }

  maskAt(place) {
    return Uint8Array.from(this.index, (value) => (value > place ? 1 : 0));
  }

  heatmap(of) {
    return this.header.heatmaps.find((one) => one.of === of);
  }

  heatLayer(of) {
    if (!this.heat.has(of)) {
      const place = this.header.heatmaps.findIndex((one) => one.of === of);
      if (place < 0) return null;
      const { width, height } = this.grid;
      const { rows, columns } = this.header.heatmaps[place];
      const full = upsample(this.evidence[place], rows, columns, height, width);
      const layer = new Layer(width, height);
      colourise(full, colourTable(INFERNO), 0, layer.pixels);
      layer.put();
      this.heat.set(of, { layer, path: pathAt(makeField(full, height, width), HEAT_CUTOFF) });
    }
    return this.heat.get(of);
  }
}

/** A picture of the grid's size that is written pixel by pixel and drawn at any zoom. */
class Layer {
  constructor(width, height) {
    this.canvas = Object.assign(document.createElement("canvas"), { width, height });
    this.context = this.canvas.getContext("2d");
    this.image = this.context.createImageData(width, height);
    this.pixels = new Uint32Array(this.image.data.buffer);
  }

  put() {
    this.context.putImageData(this.image, 0, 0);
  }
}

class Case {
  static async from(message) {
    const { header, blob } = message;
    const grid = { width: header.grid_width, height: header.grid_height };
    const png = new Blob([blob(header.scan)], { type: "image/png" });
    const bitmap = await createImageBitmap(png, { colorSpaceConversion: "none" });
    const readings = await Promise.all(header.readings.map((one) => Reading.from(one, grid, message)));
    const truth = header.truth ? unpackBits(await inflate(blob(header.truth)), grid.width * grid.height) : null;
    return new Case(header, grid, bitmap, readings, truth);
  }

  constructor(header, grid, bitmap, readings, truth) {
    this.header = header;
    this.width = grid.width;
    this.height = grid.height;
    this.bitmap = bitmap;
    this.readings = readings;
    this.truth = truth;
    this.truthPath = truth ? pathAt(makeField(truth, grid.height, grid.width), 0.5) : null;
    this.curves = readings.map((reading) => this.countCurve(reading));
  }

  /** Counted here from the scan's own pixels; for a scan above four megapixels Python has counted them. */
  countCurve(reading) {
    if (!this.truth) return null;
    const { counts, cutoffs } = reading.header;
    return counts ?? countReached(reading.index, this.truth, cutoffs.length);
  }

  isSameAs(header) {
    const versions = ({ readings }) => readings.map(({ version }) => version).join("\n"); // two may say the same of a scan
    const isOne = this.header.scan_id === header.scan_id && this.header.content === header.content;
    return isOne && versions(this.header) === versions(header);
  }

  updateHeader(header) {
    this.header = header;
    this.readings.forEach((reading, place) => (reading.header = header.readings[place]));
  }

  differenceAt(place) {
    this.difference ??= new Layer(this.width, this.height);
    if (this.differencePlace !== place) {
      this.differencePlace = place;
      const { missed, extra, agreed } = DIFFERENCE_COLOURS;
      const colours = (one) => [0, pixelOf(missed, one), pixelOf(extra, one), pixelOf(agreed, DIFFERENCE_OPACITY)];
      const looks = { plain: colours(DIFFERENCE_OPACITY), stripe: colours(STRIPE_OPACITY) };
      paintDifference(this.readings[0].index, place, this.truth, this.width, looks, this.difference.pixels);
      this.difference.put();
    }
    return this.difference.canvas;
  }

  /** The middle column of the truth, or without one of the prediction; null where nothing is outlined. */
  middle() {
    const [reading] = this.readings;
    const place = reading.placeOf(reading.header.cutoff);
    const inside = this.truth?.some(Boolean) ? (i) => this.truth[i] : (i) => reading.index[i] > place;
    let [low, high] = [Infinity, -1];
    for (let i = 0; i < reading.index.length; i += 1) {
      if (!inside(i)) continue;
      const column = i % this.width;
      if (column < low) low = column;
      if (column > high) high = column;
    }
    return high < 0 ? null : (low + high + 1) / 2;
  }

  close() {
    this.bitmap.close();
  }
}

/** A mask's outline, light on a dark halo, as thick on the screen at any zoom. */
function drawMask(context, path, view, colour, { fill, dashed = false }) {
  if (fill) {
    context.globalAlpha = FILL_OPACITY;
    context.fillStyle = colour;
    context.fill(path, "evenodd");
  }
  context.globalAlpha = 1;
  context.lineJoin = "round";
  if (dashed) context.setLineDash([5 / view.scale, 4 / view.scale]);
  for (const [stroke, width] of [["rgba(0, 0, 0, 0.55)", HALO_PX], [colour, OUTLINE_PX]]) {
    context.strokeStyle = stroke;
    context.lineWidth = width / view.scale;
    context.stroke(path);
  }
  context.setLineDash([]);
}

/** Numbers of lesions, as the table below the panes has them; as large on the screen at any zoom. */
function drawNumbers(context, lesions, view) {
  context.font = `600 ${13 / view.scale}px system-ui, sans-serif`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  for (const { number, x, y } of lesions) {
    context.lineWidth = 3.5 / view.scale;
    context.strokeStyle = "rgba(0, 0, 0, 0.85)";
    context.strokeText(number, x, y);
    context.fillStyle = "#fff";
    context.fillText(number, x, y);
  }
}

/** Layers of pixels stay sharp when enlarged: what is counted is what is seen. */
function drawPixels(context, canvas, view) {
  context.imageSmoothingEnabled = view.scale < 1;
  context.drawImage(canvas, 0, 0);
  context.imageSmoothingEnabled = true;
}

function drawCross(context, { x, y }, view) {
  const arm = 9 / view.scale;
  for (const [stroke, width] of [["#000", 4], ["#fff", 1.5]]) {
    context.strokeStyle = stroke;
    context.lineWidth = width / view.scale;
    context.beginPath();
    context.moveTo(x - arm, y);
    context.lineTo(x + arm, y);
    context.moveTo(x, y - arm);
    context.lineTo(x, y + arm);
    context.stroke();
  }
}
