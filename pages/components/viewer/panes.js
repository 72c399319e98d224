/*
 * The two panes: one view (zoom and centre) for both, drawing, and the gestures that move the view.
 */

const MAX_ZOOM = 16;
const ZOOM_STEP = 1.25;
const NEAR = 2.5; // what a double click goes to
const LESION_COLOUR = "#4fd8ff";
const OUTLINE_PX = 1.75; // on the screen, at any zoom
const HALO_PX = 4;

/** What part of the grid is seen; `zoom` 1 shows all of it. */
class View {
  constructor() {
    this.pane = { width: 1, height: 1 };
    this.grid = { width: 1, height: 1 };
    this.reset();
  }

  reset() {
    this.zoom = 1;
    this.centre = { x: this.grid.width / 2, y: this.grid.height / 2 };
  }

  /** Screen pixels for one grid pixel. */
  get scale() {
    return this.zoom * Math.min(this.pane.width / this.grid.width, this.pane.height / this.grid.height);
  }

  get origin() {
    return {
      x: this.pane.width / 2 - this.centre.x * this.scale,
      y: this.pane.height / 2 - this.centre.y * this.scale,
    };
  }

  toGrid(x, y) {
    return { x: (x - this.origin.x) / this.scale, y: (y - this.origin.y) / this.scale };
  }

  /** Zoom by a factor, keeping what lies under (x, y) of the pane where it is. */
  zoomAt(factor, x = this.pane.width / 2, y = this.pane.height / 2) {
    const held = this.toGrid(x, y);
    this.zoom = Math.min(MAX_ZOOM, Math.max(1, this.zoom * factor));
    this.centre.x = held.x - (x - this.pane.width / 2) / this.scale;
    this.centre.y = held.y - (y - this.pane.height / 2) / this.scale;
    this.keepInside();
  }

  panBy(x, y) {
    this.centre.x -= x / this.scale;
    this.centre.y -= y / this.scale;
    this.keepInside();
  }

  keepInside() {
    for (const [axis, side] of [["x", "width"], ["y", "height"]]) {
      const half = this.pane[side] / this.scale / 2;
      const length = this.grid[side];
      this.centre[axis] = half * 2 >= length ? length / 2 : Math.min(length - half, Math.max(half, this.centre[axis]));
    }
  }
}

/** Size a canvas for the screen and leave its context in grid coordinates. */
function beginDrawing(canvas, view, ratio) {
  const width = Math.max(1, Math.round(view.pane.width * ratio));
  const height = Math.max(1, Math.round(view.pane.height * ratio));
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, width, height);
  const { scale, origin } = view;
  context.setTransform(scale * ratio, 0, 0, scale * ratio, origin.x * ratio, origin.y * ratio);
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  return context;
}

function drawScan(canvas, scene, view, ratio) {
  beginDrawing(canvas, view, ratio).drawImage(scene.bitmap, 0, 0, scene.width, scene.height);
}

/** Layers from below: lesion fill (under the colours that carry a scale), probability, heat map inside its cut-off, outline. */
function drawOverlay(canvas, scene, view, ratio, { layers, lesionPath, heat }) {
  const context = beginDrawing(canvas, view, ratio);
  if (!layers) return;
  if (layers.fill) {
    context.globalAlpha = layers.fillOpacity;
    context.fillStyle = LESION_COLOUR;
    context.fill(lesionPath, "evenodd");
  }
  if (layers.probability) {
    context.globalAlpha = layers.probabilityOpacity;
    context.drawImage(scene.probability.canvas, 0, 0);
  }
  if (heat) {
    context.save();
    context.clip(heat.path, "evenodd");
    context.globalAlpha = heat.opacity;
    context.drawImage(heat.canvas, 0, 0);
    context.restore();
  }
  if (layers.outline) {
    context.lineJoin = "round";
    context.globalAlpha = layers.outlineOpacity;
    for (const [colour, width] of [["rgba(0, 0, 0, 0.55)", HALO_PX], [LESION_COLOUR, OUTLINE_PX]]) {
      context.strokeStyle = colour;
      context.lineWidth = width / view.scale;
      context.stroke(lesionPath);
    }
  }
}

/** Wheel, drag, pinch and double click on the panes move the view; `moved` redraws, `pointed` follows the pointer. */
function listenToGestures(stages, view, { moved, pointed }, signal) {
  const fingers = new Map();
  const place = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  const spread = () => {
    const [a, b] = [...fingers.values()];
    return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, length: Math.hypot(a.x - b.x, a.y - b.y) };
  };
  const drag = (event) => {
    const before = fingers.get(event.pointerId);
    const now = place(event);
    if (fingers.size === 2) {
      const old = spread();
      fingers.set(event.pointerId, now);
      const fresh = spread();
      view.panBy(fresh.x - old.x, fresh.y - old.y);
      if (old.length > 0) view.zoomAt(fresh.length / old.length, fresh.x, fresh.y);
    } else {
      fingers.set(event.pointerId, now);
      view.panBy(now.x - before.x, now.y - before.y);
    }
    moved();
  };
  const lift = (event) => fingers.delete(event.pointerId);
  for (const stage of stages) {
    const on = (name, listener) => stage.addEventListener(name, listener, { signal, passive: false });
    on("wheel", (event) => {
      event.preventDefault();
      const { x, y } = place(event);
      view.zoomAt(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), x, y);
      moved();
    });
    on("pointerdown", (event) => {
      if (event.button !== 0 || event.target.closest("button")) return;
      stage.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, place(event));
    });
    on("pointermove", (event) => {
      if (fingers.has(event.pointerId)) drag(event);
      pointed(stage, place(event));
    });
    on("pointerup", lift);
    on("pointercancel", lift);
    on("pointerleave", () => pointed(stage, null));
    on("dblclick", (event) => {
      const { x, y } = place(event);
      if (view.zoom > 1.001) view.reset();
      else view.zoomAt(NEAR, x, y); // who has one finger alone has no other way on a phone
      moved();
    });
  }
}
