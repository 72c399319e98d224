/*
 * The comparison: panes with one view, cut-offs whose figures follow at once, split line, blinking, correcting.
 * Scripts are joined into one module (compare_viewer.py); View and the gestures are the viewer's.
 */

const NARROW_PX = 640;
const PAN_STEP_PX = 60;
const KEYBOARD_PAUSE_MS = 400;
const BLINK_MS = 700; // below 1.5 a second: well under what may harm
const FIGURES = { dice: "Dice", iou: "IoU", precision: "Precision", recall: "Recall" };
const MODES = ["panels", "difference", "split", "versions"];
const TOOLS = ["brush", "eraser", "polygon"];

const preferences = { mode: "panels", split: null, both: true, fill: true, brightness: 1, contrast: 1, heatOf: null };
const count = (value) => Math.round(value).toLocaleString("en").replaceAll(",", "\u202f");

const mounted = new Map();
let active = null;

function element(name, attributes = {}, ...children) {
  const made = Object.assign(document.createElement(name), attributes);
  made.append(...children);
  return made;
}

class Compare {
  constructor(host) {
    this.root = host.querySelector(".compare");
    this.ending = new AbortController();
    this.cutoffs = {}; // by scan, then by model version: what the reader chose
    this.panes = new Map();
    for (const pane of this.root.querySelectorAll(".pane")) {
      const stage = pane.querySelector(".stage");
      this.panes.set(pane.dataset.pane, { stage, canvas: stage.querySelector("canvas"), view: new View() });
    }
    const pane = this.root.querySelector('[data-pane="edit"]');
    const hooks = {
      view: () => this.panes.get("edit").view,
      changed: () => (this.link("edit"), this.draw()),
      finished: () => (this.writeEditing(), this.draw()),
    };
    this.editor = new Editor(pane, hooks, this.ending.signal);
    this.listen();
    active ??= this;
  }

  part(name) {
    return this.root.querySelector(`[data-part="${name}"]`);
  }

  // ---- data from Streamlit -------------------------------------------------------------------------------------

  async show(bytes, ports) {
    this.ports = ports;
    const message = openMessage(bytes);
    const ticket = (this.ticket = (this.ticket ?? 0) + 1);
    this.root.style.setProperty("--viewer-height", `${message.height}px`);
    if (this.case?.isSameAs(message.header)) {
      this.case.updateHeader(message.header); // new distances, the same pixels
      this.writeHeader();
      this.write();
      return;
    }
    const fresh = await Case.from(message);
    if (ticket !== this.ticket || this.ending.signal.aborted) return fresh.close();
    const old = this.case;
    this.case = fresh;
    old?.close();
    const moved = old?.header.scan_id !== fresh.header.scan_id;
    for (const { view } of this.panes.values()) {
      view.grid = { width: fresh.width, height: fresh.height };
      if (moved) view.reset();
      view.keepInside();
    }
    this.root.style.setProperty("--aspect", fresh.width / fresh.height);
    if (moved) {
      this.stopBlinking();
      preferences.split = null; // through the lesion, wherever it lies
    }
    if (preferences.mode === "versions" && fresh.readings.length < 2) preferences.mode = "panels";
    if (preferences.mode === "edit" && !fresh.header.live) preferences.mode = "panels";
    if (preferences.mode === "difference" && !fresh.truth) preferences.mode = "panels";
    this.buildReadings();
    this.buildClasses();
    this.writeHeader();
    this.startEditing();
    this.write();
    this.root.dataset.ready = fresh.header.scan_id;
  }

  get chosen() {
    return (this.cutoffs[this.case.header.scan_id] ??= {});
  }

  cutoffOf(place) {
    const { header } = this.case.readings[place];
    return this.chosen[header.version] ?? header.current_cutoff;
  }

  placeOf(place) {
    return this.case.readings[place].placeOf(this.cutoffOf(place));
  }

  get heatOf() {
    const [reading] = this.case.readings;
    return reading.heatmap(preferences.heatOf) ? preferences.heatOf : reading.header.heat_first;
  }

  report(pause = 0) {
    clearTimeout(this.reporting);
    this.reporting = setTimeout(() => this.ports.setStateValue("views", structuredClone(this.cutoffs)), pause);
  }

  step(by) {
    const { position, count: all, scan_id: scanId } = this.case.header;
    if (position + by < 1 || position + by > all) return;
    this.ports.setTriggerValue("step", { scan_id: scanId, by });
  }

  // ---- words and numbers ---------------------------------------------------------------------------------------

  writeHeader() {
    const { header } = this.case;
    this.part("failed").hidden = true;
    this.part("name").textContent = this.part("name").title = header.name;
    this.part("position").textContent = `${header.position} of ${header.count}`;
    for (const button of this.part("steps").querySelectorAll("button")) button.hidden = header.count === 1;
    this.root.querySelector('[data-action="previous"]').disabled = header.position <= 1;
    this.root.querySelector('[data-action="next"]').disabled = header.position >= header.count;
    this.part("size").textContent = `${header.width} × ${header.height} px`;
    this.part("simulated").hidden = !header.simulated;
    const noLesion = header.truth !== null && this.case.curves[0].lesion === 0;
    this.part("no-truth").hidden = header.truth !== null && !noLesion;
    this.part("no-truth").textContent = noLesion ? "The reference has no lesion, so no overlap is defined: what counts is whether anything is outlined." : header.no_truth;
    this.part("hand-over").hidden = !header.store;
    header.readings.forEach(({ version }, place) => (this.part(`version-${place}`).textContent = version));
    this.root.querySelector('button[data-mode="versions"]').hidden = header.readings.length < 2;
    const edit = this.root.querySelector('button[data-mode="edit"]');
    edit.disabled = !header.live;
    edit.title = header.live ? "Correct the mask (E)" : "Masks are corrected on scans of up to 4 megapixels";
    this.root.querySelector('[data-start="truth"]').disabled = header.truth === null;
    this.root.querySelector('[data-action="blink"]').disabled = this.root.querySelector('button[data-mode="difference"]').disabled = header.truth === null;
    this.part("curve-block").hidden = header.truth === null || noLesion;
    this.part("legend").hidden = header.truth === null;
    const names = {
      scan: header.label, truth: "Reference mask on the scan", prediction: `What model ${header.readings[0].version} outlines`,
      other: `What model ${header.readings[1]?.version} outlines`, heat: "Heat map on the scan",
      difference: "Where reference and prediction agree, what is missed and what is extra",
      split: "Reference and prediction on one scan", edit: "Your mask on the scan",
    };
    for (const [name, { canvas }] of this.panes) canvas.setAttribute("aria-label", names[name]);
  }

  buildReadings() {
    const blocks = this.case.header.readings.map(({ version, cutoff }, place) => {
      const slider = element("input", { type: "range", min: 0.01, max: 0.99, step: 0.01 });
      slider.dataset.cutoff = place;
      slider.setAttribute("aria-label", `Cut-off on the lesion probability of model ${version}`);
      const tick = element("i", { className: "tick", title: `This model's cut-off: ${cutoff.toFixed(2)}` });
      tick.style.setProperty("--at", (cutoff - 0.01) / 0.98);
      const back = element("button", { type: "button", className: "quiet", textContent: "Model's cut-off" });
      back.dataset.action = "model-cutoff";
      back.dataset.of = place;
      back.title = `Back to ${cutoff.toFixed(2)}, the cut-off this model was set to`;
      const name = element("span", { textContent: version, title: `Model ${version}` });
      return element(
        "div", { className: "reading" },
        element("div", { className: "reading-title" }, name, back),
        element("label", { className: "row" }, element("span", { className: "what", textContent: "Cut-off" }),
          element("span", { className: "track" }, tick, slider), element("output")),
        figureRow(["HD95", "hd95", "95 % of the two borders lie within this many pixels of each other"]),
      );
    });
    const own = element("div", { className: "reading", hidden: true },
      element("div", { className: "reading-title" }, element("span", { textContent: "Your mask against the truth" })),
      figureRow(["Pixels", "pixels", "Pixels of your mask"]));
    own.dataset.part = "own-figures";
    this.part("readings").replaceChildren(...blocks, own);
  }

  buildClasses() {
    const buttons = this.case.header.readings[0].heatmaps.map(({ of }) => {
      const button = element("button", { type: "button", textContent: of, title: `Heat map of ${of}` });
      button.dataset.heat = of;
      return button;
    });
    this.part("classes").replaceChildren(...buttons);
    this.part("classes").hidden = buttons.length === 0;
  }

  write() {
    this.root.dataset.mode = preferences.mode;
    this.root.dataset.tool = this.editor.tool;
    for (const button of this.root.querySelectorAll("button[data-mode]")) {
      button.setAttribute("aria-pressed", button.dataset.mode === preferences.mode);
    }
    for (const button of this.root.querySelectorAll("[data-heat]")) {
      button.setAttribute("aria-pressed", button.dataset.heat === this.heatOf);
    }
    for (const toggle of this.root.querySelectorAll("[data-toggle]")) toggle.checked = preferences[toggle.dataset.toggle];
    for (const slider of this.root.querySelectorAll("[data-pref]")) fillSlider(slider, preferences[slider.dataset.pref], percent);
    const { brightness, contrast } = preferences;
    this.filter = brightness === 1 && contrast === 1 ? "none" : `brightness(${brightness}) contrast(${contrast})`;
    this.writeFigures();
    this.writeCurve();
    this.writeHeat();
    this.writeEditing();
    this.onResize();
    this.writeSplit();
    this.draw();
  }

  /** Where the line starts: through the middle of the truth, or of the prediction. */
  startSplit() {
    const { view, stage } = this.panes.get("split");
    if (preferences.split !== null || !stage.clientWidth) return;
    const middle = this.case.middle();
    preferences.split = middle === null ? 50 : Math.min(98, Math.max(2, (100 * (view.origin.x + middle * view.scale)) / view.pane.width));
  }

  writeSplit() {
    this.startSplit();
    const divider = this.root.querySelector(".divider");
    divider.style.setProperty("--split", preferences.split ?? 50);
    divider.setAttribute("aria-valuenow", Math.round(preferences.split ?? 50));
    const shown = this.blinking ? this.blinkShows : null;
    this.root.toggleAttribute("data-blinking", Boolean(this.blinking));
    this.root.querySelector('[data-action="blink"]').setAttribute("aria-pressed", Boolean(this.blinking));
    this.part("side-left").lastChild.textContent = shown === "prediction" ? "Prediction" : "Truth";
    this.part("side-left").firstChild.className = `key ${shown === "prediction" ? "prediction" : "truth"}`;
    this.part("split-caption").textContent = shown ? "Truth and prediction in turn (B stops)" : "Truth left of the line, prediction right of it";
  }

  writeFigures() {
    const { readings, curves, width, height } = this.case;
    const total = width * height;
    const scale = (this.case.header.width * this.case.header.height) / total; // a reduced grid counts for more
    readings.forEach((reading, place) => {
      const block = this.part("readings").children[place];
      const at = this.placeOf(place);
      const cutoff = reading.header.cutoffs[at];
      fillSlider(block.querySelector("input"), this.cutoffOf(place), (value) => value.toFixed(2));
      block.querySelector("[data-action]").disabled = cutoff === reading.header.cutoff;
      const counts = curves[place] && countsAt(curves[place], at);
      writeFour(block, counts && figuresOf(counts));
      this.writeDistance(block.querySelector('[data-figure="hd95"]'), reading.header, cutoff);
      const marked = counts ? counts.hit + counts.extra : countAbove(reading.index, at + 0.5) * scale;
      const fact = `${percent(marked / (this.case.header.width * this.case.header.height), 1)} of image`;
      this.part(place ? "other-fact" : "prediction-fact").textContent = counts ? `${fact} · Dice ${three(figuresOf(counts).dice)}` : fact;
      if (place === 0 && counts) {
        for (const one of ["hit", "missed", "extra"]) this.part(`sum-${one}`).textContent = count(counts[one]);
        const share = (counts.hit + counts.missed) / (this.case.header.width * this.case.header.height);
        this.part("truth-fact").textContent = share ? `${percent(share, 1)} of image` : "no lesion";
      }
    });
    if (!this.case.truth) this.part("truth-fact").textContent = "none";
  }

  /** Distances come from the server, once the slider is let go. */
  writeDistance(place, { distance }, cutoff) {
    const known = this.case.truth && distance && distance.cutoff === cutoff;
    place.classList.toggle("stale", !known);
    place.textContent = !this.case.truth ? "n/a" : !known ? "…" : distance.hd95_px === null ? "n/a" : `${distance.hd95_px.toFixed(1)} px`;
    place.dataset.value = known ? String(distance.hd95_px) : "";
  }

  writeCurve() {
    const svg = this.root.querySelector(".curve");
    const shapes = [0, 28, 56, 84, 112].map((y) => svgLine("grid", 0, y, 280, y));
    this.case.curves.forEach((curve, place) => {
      if (!curve) return;
      const { cutoffs, cutoff } = this.case.readings[place].header;
      for (const name of ["iou", "dice"]) {
        const points = cutoffs.flatMap((one, at) => {
          const value = figuresOf(countsAt(curve, at))[name];
          return Number.isNaN(value) ? [] : [`${(280 * one).toFixed(2)},${(112 * (1 - value)).toFixed(2)}`];
        });
        const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
        line.setAttribute("points", points.join(" "));
        line.setAttribute("class", place ? `${name} second` : name);
        shapes.push(line);
      }
      if (place === 0) shapes.push(svgLine("now", 280 * this.cutoffOf(0), 0, 280 * this.cutoffOf(0), 112), svgLine("own", 280 * cutoff, 0, 280 * cutoff, 112));
    });
    svg.replaceChildren(...shapes);
    const { header } = this.case.readings[0];
    this.part("own-note").textContent = `model ${header.cutoff.toFixed(2)}`;
    this.part("own-note").style.setProperty("--at", header.cutoff);
    const curve = this.case.curves[0];
    if (!curve) return;
    const dice = header.cutoffs.map((_, at) => figuresOf(countsAt(curve, at)).dice);
    const best = dice.reduce((most, value, at) => (value > dice[most] ? at : most), 0);
    const words = Number.isNaN(dice[best]) ? "No overlap is defined for this scan" : `Dice and IoU against the cut-off: highest Dice ${three(dice[best])} at ${header.cutoffs[best].toFixed(2)}, at the model's own cut-off ${three(dice[header.cutoffs.indexOf(header.cutoff)])}`;
    svg.setAttribute("aria-label", words);
    this.part("curve-block").title = words;
  }

  writeHeat() {
    const heatmap = this.case.readings[0].heatmap(this.heatOf);
    this.part("heat-of").textContent = heatmap ? `of ${heatmap.of}` : "none";
    const { fit } = heatmap ?? {};
    this.part("heat-fact").textContent = !fit || fit.energy_inside === null ? "" : `${percent(fit.energy_inside)} inside the truth, peak ${fit.peak_inside ? "inside" : "outside"}`;
  }

  // ---- drawing -------------------------------------------------------------------------------------------------

  draw() {
    this.frame ??= requestAnimationFrame(() => this.drawNow());
  }

  drawNow() {
    cancelAnimationFrame(this.frame);
    this.frame = null;
    if (!this.case) return;
    const [first] = this.panes.values();
    this.part("zoom").textContent = percent(first.view.zoom);
    this.root.toggleAttribute("data-zoomed", first.view.zoom > 1.001);
    for (const [name, { stage, canvas, view }] of this.panes) if (stage.clientWidth) this.drawPane(name, canvas, view);
  }

  drawPane(name, canvas, view) {
    const context = beginDrawing(canvas, view, window.devicePixelRatio || 1);
    context.globalAlpha = 1;
    context.filter = this.filter;
    context.drawImage(this.case.bitmap, 0, 0, this.case.width, this.case.height);
    context.filter = "none";
    if (this.hidden) return;
    const painters = {
      truth: () => this.drawTruth(context, view),
      prediction: () => this.drawReading(context, view, 0),
      other: () => this.case.readings[1] && this.drawReading(context, view, 1),
      heat: () => this.drawHeat(context, view),
      difference: () => this.case.truth && drawPixels(context, this.case.differenceAt(this.placeOf(0)), view),
      split: () => this.drawSplit(context, view),
      edit: () => this.drawEditing(context, view),
    };
    painters[name]?.();
  }

  drawTruth(context, view, options = { fill: preferences.fill }) {
    if (this.case.truth) drawMask(context, this.case.truthPath, view, TRUTH_COLOUR, options);
  }

  drawReading(context, view, place, { plain = false } = {}) {
    const path = this.case.readings[place].pathAt(this.placeOf(place));
    drawMask(context, path, view, LESION_COLOUR, { fill: preferences.fill });
    if (preferences.both && !plain) this.drawTruth(context, view, { fill: false, dashed: true });
  }

  drawHeat(context, view) {
    const heat = this.case.readings[0].heatLayer(this.heatOf);
    if (!heat) return;
    context.save();
    context.clip(heat.path, "evenodd");
    context.globalAlpha = HEAT_OPACITY;
    context.drawImage(heat.layer.canvas, 0, 0);
    context.restore();
    this.drawTruth(context, view, { fill: false });
    const { fit } = this.case.readings[0].heatmap(this.heatOf);
    const scale = this.case.width / this.case.header.width;
    if (fit?.peak) drawCross(context, { x: (fit.peak[0] + 0.5) * scale, y: (fit.peak[1] + 0.5) * scale }, view);
  }

  /** Truth on one side of the line, prediction on the other; while blinking, one of them everywhere. */
  drawSplit(context, view) {
    const split = view.toGrid((view.pane.width * (preferences.split ?? 50)) / 100, 0).x;
    const sides = { truth: [-1e6, split], prediction: [split, 1e6] };
    for (const [side, [left, right]] of Object.entries(sides)) {
      if (this.blinking && this.blinkShows !== side) continue;
      context.save();
      if (!this.blinking) {
        context.beginPath();
        context.rect(left, -1e6, right - left, 2e6);
        context.clip();
      }
      if (side === "truth") this.drawTruth(context, view);
      else this.drawReading(context, view, 0, { plain: true });
      context.restore();
    }
  }

  drawEditing(context, view) {
    if (!this.editor.current) return;
    if (preferences.both) this.drawTruth(context, view, { fill: false, dashed: true });
    this.editor.draw(context, view, { fill: preferences.fill });
  }

  // ---- correcting ----------------------------------------------------------------------------------------------

  startEditing() {
    const { header, width, height, readings } = this.case;
    this.editor.current = null;
    this.editor.corners = [];
    if (preferences.mode !== "edit") return;
    this.editor.current = this.editor.draft(header.scan_id, () => ({ mask: readings[0].maskAt(this.placeOf(0)), width, height }));
  }

  startFrom(source) {
    const { readings, truth } = this.case;
    const masks = { prediction: () => readings[0].maskAt(this.placeOf(0)), truth: () => truth, nothing: () => new Uint8Array(truth?.length ?? readings[0].index.length) };
    this.editor.current.change((mask) => mask.set(masks[source]()));
    this.writeEditing();
    this.draw();
  }

  writeEditing() {
    const editing = preferences.mode === "edit" && Boolean(this.editor.current);
    this.part("editing").hidden = !editing;
    this.part("own-figures").hidden = !editing || !this.case.truth;
    if (!editing) return;
    const { current, tool, radius } = this.editor;
    for (const button of this.root.querySelectorAll("[data-tool]")) {
      if (button !== this.root) button.setAttribute("aria-pressed", button.dataset.tool === tool);
    }
    this.root.dataset.tool = tool;
    const slider = this.root.querySelector("[data-brush]");
    slider.value = 2 * radius;
    slider.style.setProperty("--share", (2 * radius - slider.min) / (slider.max - slider.min));
    this.part("brush-value").textContent = `${2 * radius} px`;
    this.root.querySelector('[data-action="undo"]').disabled = current.done.length === 0;
    this.root.querySelector('[data-action="redo"]').disabled = current.undone.length === 0;
    let pixels = 0;
    for (const one of current.mask) pixels += one;
    this.part("edit-fact").textContent = `${count(pixels)} px, ${percent(pixels / current.mask.length, 1)} of image`;
    if (!this.case.truth) return;
    const block = this.part("own-figures");
    writeFour(block, figuresOf(countMasks(current.mask, this.case.truth)));
    block.querySelector('[data-figure="pixels"]').textContent = count(pixels);
  }

  async download() {
    const { mask, width, height } = this.editor.current;
    const address = URL.createObjectURL(await maskPng(mask, width, height));
    const link = element("a", { href: address, download: this.case.header.mask_name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
  }

  /** Give the mask to the page, which asks who, and whether patient text is in the scan. */
  async handOver() {
    const { header, readings } = this.case;
    const { mask, width, height } = this.editor.current;
    const text = base64(await deflate(packBits(mask)));
    const { version, cutoffs } = readings[0].header;
    this.ports.setStateValue("edited", { scan_id: header.scan_id, width, height, mask: text, version, cutoff: cutoffs[this.placeOf(0)] });
  }

  // ---- what the reader does ------------------------------------------------------------------------------------

  listen() {
    const { signal } = this.ending;
    const on = (target, name, listener) => target.addEventListener(name, listener, { signal });
    on(this.root, "input", (event) => this.onInput(event.target));
    on(this.root, "change", (event) => event.target.dataset.cutoff && this.report(this.byKeyboard ? KEYBOARD_PAUSE_MS : 0));
    on(this.root, "click", (event) => this.onClick(event));
    on(this.root, "keydown", () => (this.byKeyboard = true));
    on(this.root, "pointerdown", () => {
      this.byKeyboard = false;
      active = this;
    });
    on(this.root, "pointerenter", () => (active = this));
    on(this.root, "pointerup", (event) => this.giveKeysBack(event.target));
    on(document, "keydown", (event) => this.onKey(event));
    on(document, "keyup", (event) => event.key === " " && this.setMoving(false));
    on(document, "fullscreenchange", () => this.draw());
    this.listenToDivider(on);
    for (const [name, { stage, view }] of this.panes) {
      const moved = () => {
        this.link(name);
        this.draw();
      };
      listenToGestures([stage], view, { moved, pointed: () => {} }, signal);
    }
    const curve = this.root.querySelector(".curve");
    on(curve, "click", (event) => {
      const box = curve.getBoundingClientRect();
      this.setCutoff(0, Math.min(0.99, Math.max(0.01, Math.round((100 * (event.clientX - box.left)) / box.width) / 100)));
      this.report();
    });
    this.sizes = new ResizeObserver(() => {
      this.onResize();
      this.drawNow();
    });
    for (const one of [this.root, ...[...this.panes.values()].map(({ stage }) => stage)]) this.sizes.observe(one);
  }

  listenToDivider(on) {
    const divider = this.root.querySelector(".divider");
    const place = (event) => {
      const box = divider.parentElement.getBoundingClientRect();
      this.setSplit((100 * (event.clientX - box.left)) / box.width);
    };
    on(divider, "pointerdown", (event) => {
      event.stopPropagation(); // not the view's to drag
      active = this;
      divider.setPointerCapture(event.pointerId);
      divider.focus({ preventScroll: true });
      this.dragging = true;
    });
    on(divider, "pointermove", (event) => {
      event.stopPropagation();
      if (this.dragging) place(event);
    });
    for (const name of ["pointerup", "pointercancel"]) on(divider, name, () => (this.dragging = false));
    on(divider, "dblclick", (event) => event.stopPropagation());
    on(divider, "keydown", (event) => {
      const by = { ArrowLeft: -2, ArrowRight: 2, Home: -100, End: 100 }[event.key];
      if (!by || event.shiftKey) return;
      event.preventDefault();
      event.stopPropagation();
      this.setSplit((preferences.split ?? 50) + by);
    });
  }

  setSplit(share) {
    preferences.split = Math.min(100, Math.max(0, share));
    this.writeSplit();
    this.draw();
  }

  /** All panes show the same part of the scan. */
  link(name) {
    const { zoom, centre } = this.panes.get(name).view;
    for (const { view } of this.panes.values()) {
      view.zoom = zoom;
      view.centre = { ...centre };
      view.keepInside();
    }
  }

  onResize() {
    const narrow = this.root.clientWidth < NARROW_PX;
    this.root.dataset.size = narrow ? "narrow" : "wide";
    for (const { stage, view } of this.panes.values()) {
      if (!stage.clientWidth) continue;
      view.pane = { width: stage.clientWidth, height: stage.clientHeight };
      view.keepInside();
    }
  }

  onInput(input) {
    const { cutoff, pref, toggle } = input.dataset;
    if (cutoff !== undefined) return this.setCutoff(Number(cutoff), Number(input.value));
    if ("brush" in input.dataset) this.editor.radius = Number(input.value) / 2;
    if (pref) preferences[pref] = Number(input.value);
    if (toggle) preferences[toggle] = input.checked;
    this.write();
  }

  /** The model's own cut-off may lie between two steps of the slider, and can be met again exactly. */
  setCutoff(place, value) {
    const { header } = this.case.readings[place];
    this.chosen[header.version] = Math.abs(value - header.cutoff) <= 0.005 ? header.cutoff : value;
    this.writeFigures();
    this.writeCurve();
    this.draw();
  }

  giveKeysBack(target) {
    if (target.closest("input, button, label")) setTimeout(() => this.root.focus({ preventScroll: true }));
  }

  onClick(event) {
    const button = event.target.closest("button");
    if (!button || !this.case || button.disabled) return;
    const { mode, heat, tool, start, action } = button.dataset;
    if (mode) this.setMode(mode);
    else if (heat) this.set({ heatOf: heat });
    else if (tool) this.chooseTool(tool);
    else if (start) this.startFrom(start);
    else if (action === "model-cutoff") this.backToModel(Number(button.dataset.of));
    else this.act(action);
  }

  backToModel(place) {
    this.setCutoff(place, this.case.readings[place].header.cutoff);
    this.report();
  }

  act(action) {
    const { view } = [...this.panes.values()].find(({ stage }) => stage.clientWidth) ?? {};
    const name = [...this.panes].find(([, pane]) => pane.view === view)?.[0];
    const move = (change) => {
      change();
      this.link(name);
      this.draw();
    };
    const actions = {
      previous: () => this.step(-1),
      next: () => this.step(1),
      blink: () => this.blink(),
      edit: () => this.setMode(preferences.mode === "edit" ? "panels" : "edit"),
      undo: () => this.travel("undo"),
      redo: () => this.travel("redo"),
      download: () => this.download(),
      "hand-over": () => this.handOver(),
      full: () => this.toggleFullScreen(),
      help: () => this.toggleHelp(),
      hide: () => ((this.hidden = !this.hidden), this.draw()),
      "zoom-in": () => move(() => view.zoomAt(ZOOM_STEP)),
      "zoom-out": () => move(() => view.zoomAt(1 / ZOOM_STEP)),
      "zoom-reset": () => move(() => view.reset()),
    };
    return actions[action]?.();
  }

  travel(way) {
    if (!this.editor.current) return;
    this.editor.current[way]();
    this.writeEditing();
    this.draw();
  }

  set(changes) {
    Object.assign(preferences, changes);
    this.write();
  }

  setMode(mode) {
    const { header, readings } = this.case;
    if ((mode === "versions" && readings.length < 2) || (mode === "edit" && !header.live)) return;
    if (mode === "difference" && !header.truth) return;
    if (mode !== "split") this.stopBlinking();
    preferences.mode = mode;
    this.startEditing();
    this.write();
  }

  chooseTool(tool) {
    this.editor.choose(tool);
    this.writeEditing();
  }

  /** Truth and prediction in turn, in one place. Who wants less motion turns them by hand: truth, prediction, off. */
  blink() {
    if (!this.case.truth) return;
    const calm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (this.blinking && calm && this.blinkShows === "truth") this.blinkShows = "prediction";
    else if (this.blinking) {
      const back = this.before;
      this.stopBlinking();
      preferences.mode = back;
    } else {
      this.before = preferences.mode === "edit" ? "split" : preferences.mode;
      preferences.mode = "split";
      this.editor.current = null;
      this.blinking = true;
      this.blinkShows = "truth";
      if (!calm) this.timer = setInterval(() => this.turn(), BLINK_MS);
    }
    this.write();
  }

  turn() {
    this.blinkShows = this.blinkShows === "truth" ? "prediction" : "truth";
    this.writeSplit();
    this.draw();
  }

  stopBlinking() {
    clearInterval(this.timer);
    this.blinking = false;
  }

  setMoving(moving) {
    this.editor.moving = moving;
    this.root.toggleAttribute("data-moving", moving);
    if (moving) this.editor.hideCursor();
  }

  toggleHelp(open = this.part("help").hidden) {
    this.part("help").hidden = !open;
    this.root.querySelector('[data-action="help"]').setAttribute("aria-expanded", open);
  }

  async toggleFullScreen() {
    if (document.fullscreenElement) await document.exitFullscreen();
    else if (this.root.requestFullscreen) await this.root.requestFullscreen().catch(() => {});
    else this.root.toggleAttribute("data-filling");
  }

  onKey(event) {
    if (active !== this || !this.case || event.defaultPrevented) return;
    const target = event.composedPath()[0];
    if (isTyping(target)) return;
    const editing = preferences.mode === "edit";
    const key = event.key.toLowerCase();
    if (event.ctrlKey || event.metaKey) {
      if (!editing || !["z", "y"].includes(key)) return;
      this.travel(key === "y" || event.shiftKey ? "redo" : "undo");
      return event.preventDefault();
    }
    if (event.altKey) return;
    const arrow = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (arrow) return usesArrows(target) ? undefined : this.onArrow(event, arrow);
    if (key === " " && editing) {
      if (!(target instanceof HTMLButtonElement)) this.setMoving(true), event.preventDefault();
      return;
    }
    if (this.onLetter(key, editing)) event.preventDefault();
  }

  onLetter(key, editing) {
    const letters = { b: "blink", e: "edit", f: "full", h: "hide", "?": "help", 0: "zoom-reset", "+": "zoom-in", "=": "zoom-in", "-": "zoom-out" };
    const place = Number(key) - 1;
    if (letters[key]) this.act(letters[key]);
    else if (editing && TOOLS[place]) this.chooseTool(TOOLS[place]);
    else if (!editing && MODES[place]) this.setMode(MODES[place]);
    else if (editing && (key === "[" || key === "]")) {
      this.editor.radius = Math.min(30, Math.max(0.5, this.editor.radius + (key === "]" ? 1 : -1)));
      this.writeEditing();
    } else if (editing && key === "enter") this.editor.closePolygon();
    else if (key === "escape") {
      this.toggleHelp(false);
      this.editor.choose(this.editor.tool); // forgets an open polygon
    } else return false;
    return true;
  }

  onArrow(event, [x, y]) {
    if (event.shiftKey) {
      const [name, { view }] = [...this.panes].find(([, { stage }]) => stage.clientWidth);
      view.panBy(x * PAN_STEP_PX, y * PAN_STEP_PX);
      this.link(name);
      this.draw();
    } else if (x && !event.repeat && this.case.header.count > 1) this.step(-x);
    else return;
    event.preventDefault();
  }

  writeFailure(error) {
    console.error("compare:", error);
    this.part("failed").hidden = false;
  }

  end() {
    this.ending.abort();
    this.sizes.disconnect();
    clearTimeout(this.reporting);
    this.stopBlinking();
    cancelAnimationFrame(this.frame);
    this.case?.close();
    if (active === this) active = null;
  }
}

const three = (value) => (Number.isNaN(value) ? "n/a" : value.toFixed(3));

/** Four figures and a fifth of another kind. */
function figureRow([word, key, hint]) {
  const cells = Object.entries(FIGURES).map(([name, title]) => cell(title, name));
  const last = cell(word, key);
  last.title = hint;
  return element("div", { className: "figures" }, ...cells, last);
}

function cell(word, key) {
  const value = element("b");
  value.dataset.figure = key;
  return element("div", {}, element("span", { textContent: word }), value);
}

function writeFour(block, figures) {
  for (const name of Object.keys(FIGURES)) {
    const place = block.querySelector(`[data-figure="${name}"]`);
    const value = figures ? figures[name] : NaN;
    place.textContent = three(value);
    place.title = Number.isNaN(value) ? "not defined here" : value.toFixed(6);
    place.dataset.value = Number.isNaN(value) ? "" : String(value);
  }
}

function svgLine(name, x1, y1, x2, y2) {
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  for (const [key, value] of Object.entries({ x1, y1, x2, y2, class: name })) line.setAttribute(key, value);
  return line;
}

export default function mount({ data, parentElement, setStateValue, setTriggerValue }) {
  if (!mounted.has(parentElement)) mounted.set(parentElement, new Compare(parentElement));
  const compare = mounted.get(parentElement);
  if (data) compare.show(data, { setStateValue, setTriggerValue }).catch((error) => compare.writeFailure(error));
  return () => {
    mounted.get(parentElement)?.end();
    mounted.delete(parentElement);
  };
}
