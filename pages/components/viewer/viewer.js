/*
 * The viewer: gestures, keys and what Streamlit hears. One Viewer lives as long as its place on the page;
 * Streamlit calls the default export again at every run with fresh data.
 */

const BRIEF_MS = 0;

class Viewer extends Panel {
  constructor(host) {
    super(host.querySelector(".viewer"));
    this.view = new View();
    this.scene = null;
    this.ticket = 0;
    this.reports = {}; // what the reader chose, by scan; Streamlit holds the same
    this.stale = { scan: true, overlay: true };
    this.stages = [...this.root.querySelectorAll(".stage")];
    this.listen();
  }

  // ---- data from Streamlit -------------------------------------------------------------------------------------

  async show(bytes, ports) {
    this.ports = ports;
    const message = openMessage(bytes);
    const ticket = ++this.ticket;
    this.root.style.setProperty("--viewer-height", `${message.height}px`);
    if (this.scene?.isSameAs(message.header)) {
      this.scene.header = message.header; // position and cover may change; nothing that is drawn does
      this.writeHeader();
      this.draw();
      return;
    }
    const scene = await Scene.from(message);
    if (ticket !== this.ticket || this.ending.signal.aborted) {
      scene.close();
      return;
    }
    const old = this.scene;
    this.scene = scene;
    if (old?.header.scan_id !== scene.header.scan_id) this.startScan();
    old?.close();
    this.view.grid = { width: scene.width, height: scene.height };
    this.root.style.setProperty("--aspect", scene.width / scene.height);
    if (old?.header.scan_id !== scene.header.scan_id) this.view.reset();
    this.view.keepInside();
    this.lesionPath = this.heatPath = null;
    this.writeHeader();
    this.writeClasses();
    this.writeControls();
    this.draw({ scan: true });
    this.root.dataset.ready = scene.header.scan_id;
  }

  startScan() {
    const { header } = this.scene;
    const report = this.reports[header.scan_id] ?? {};
    this.lesionCutoff = report.lesion_cutoff ?? header.current_lesion_cutoff;
    this.heatCutoff = report.heat_cutoff ?? header.heat_cutoff;
  }

  get header() {
    return this.scene.header;
  }

  get covered() {
    const { header } = this.scene;
    return header.read_first && !this.reports[header.scan_id]?.revealed;
  }

  get heatOf() {
    const wanted = preferences.heatOf;
    return this.scene.heatmap(wanted) ? wanted : this.scene.likeliest();
  }

  // ---- reports to Streamlit ------------------------------------------------------------------------------------

  /** Tell Streamlit what the reader chose for this scan: one message, after the last change. */
  report(choice, pause = BRIEF_MS) {
    const id = this.scene.header.scan_id;
    this.reports[id] = { ...this.reports[id], ...choice };
    clearTimeout(this.reporting);
    this.reporting = setTimeout(() => this.ports.setStateValue("views", { ...this.reports }), pause);
  }

  // ---- drawing -------------------------------------------------------------------------------------------------

  /** Draw before the next frame; the scan itself only when the view moved. */
  draw({ scan = false } = {}) {
    this.stale.scan ||= scan;
    this.stale.overlay = true;
    this.frame ??= requestAnimationFrame(() => this.drawNow());
  }

  drawNow() {
    cancelAnimationFrame(this.frame);
    this.frame = null;
    const { scene, view } = this;
    if (!scene) return;
    const ratio = window.devicePixelRatio || 1;
    if (this.stale.scan) {
      drawScan(this.canvas.scan, scene, view, ratio);
      drawScan(this.canvas.under, scene, view, ratio);
      this.part("zoom").textContent = percent(view.zoom);
      this.root.toggleAttribute("data-zoomed", view.zoom > 1.001);
    }
    this.stale = { scan: false, overlay: false };
    drawOverlay(this.canvas.overlay, scene, view, ratio, this.overlay());
  }

  overlay() {
    if (preferences.hidden || this.covered) return { layers: null };
    this.lesionPath ??= pathAt(this.scene.probability.field, this.lesionCutoff);
    return { layers: preferences, lesionPath: this.lesionPath, heat: preferences.heat ? this.heatOverlay() : null };
  }

  heatOverlay() {
    const layer = this.scene.heatLayer(this.heatOf);
    if (!layer) return null;
    if (this.heatPath?.of !== this.heatOf) this.heatPath = { of: this.heatOf, path: pathAt(layer.field, this.heatCutoff) };
    const dim = this.scene.heatmap(this.heatOf).score < DIM_BELOW_SCORE ? 0.35 : 1;
    return { canvas: layer.canvas, path: this.heatPath.path, opacity: preferences.heatOpacity * dim };
  }

  // ---- what the reader does ------------------------------------------------------------------------------------

  listen() {
    const on = this.listenToShell({ redraw: () => this.draw({ scan: true }) });
    on(this.root, "input", (event) => this.onInput(event.composedPath()[0]));
    on(this.root, "change", (event) => this.onRelease(event.composedPath()[0]));
    on(this.root, "click", (event) => this.onClick(event));
    const hooks = { moved: () => this.draw({ scan: true }), pointed: (stage, at) => this.onPoint(stage, at) };
    listenToGestures(this.stages, this.view, hooks, this.ending.signal);
    this.sizes = new ResizeObserver(() => this.onResize());
    for (const one of [this.root, ...this.stages]) this.sizes.observe(one);
  }

  onResize() {
    const narrow = this.root.clientWidth < NARROW_PX;
    if (narrow !== this.narrow) {
      this.narrow = narrow;
      this.root.dataset.size = narrow ? "narrow" : "wide";
      for (const group of this.root.querySelectorAll(".group")) {
        group.open = !narrow || group.dataset.group === "lesion";
        group.querySelector("summary").tabIndex = narrow ? 0 : -1;
      }
    }
    const stage = this.stages.find((one) => one.clientWidth > 0);
    if (!stage) return;
    this.view.pane = { width: stage.clientWidth, height: stage.clientHeight };
    this.view.keepInside();
    this.stale.scan = true;
    this.drawNow(); // in the same frame, or the pane would flash
  }

  onInput(input) {
    const { pref, toggle, cutoff } = input.dataset;
    if (pref) preferences[pref] = Number(input.value);
    if (pref?.endsWith("Opacity")) showLayer(pref.replace("Opacity", ""), true); // who moves it wants to see it
    if (toggle) showLayer(toggle, input.checked);
    if (cutoff === "lesion") this.setLesionCutoff(Number(input.value));
    if (cutoff === "heat") this.setHeatCutoff(Number(input.value));
    refreshAll();
  }

  /** The slider has steps of 0.01; the model's own cut-off may lie between two, and can be met again exactly. */
  setLesionCutoff(value) {
    const own = this.scene.header.lesion_cutoff;
    this.lesionCutoff = Math.abs(value - own) <= 0.005 ? own : value;
    this.lesionPath = null;
  }

  setHeatCutoff(value) {
    this.heatCutoff = value;
    this.heatPath = null;
  }

  onRelease(input) {
    const { cutoff } = input.dataset;
    if (!cutoff) return;
    const choice = cutoff === "lesion" ? { lesion_cutoff: this.lesionCutoff } : { heat_cutoff: this.heatCutoff };
    this.report(choice, this.byKeyboard ? KEYBOARD_PAUSE_MS : BRIEF_MS);
  }

  onClick(event) {
    const button = event.target.closest("button");
    const heading = event.target.closest("summary");
    if (heading && !this.narrow) event.preventDefault(); // groups fold on a narrow screen alone
    if (!button || !this.scene) return;
    if (button.dataset.of) this.chooseClass(button.dataset.of);
    else if (button.dataset.mode) this.set({ mode: button.dataset.mode });
    else this.act(button.dataset.action);
  }

  act(action) {
    const actions = {
      previous: () => this.stepFrom(this.header, -1),
      next: () => this.stepFrom(this.header, 1),
      hide: () => this.covered || this.set({ hidden: !preferences.hidden }),
      full: () => this.toggleFullScreen(),
      help: () => this.toggleHelp(),
      reveal: () => this.reveal(),
      "zoom-in": () => this.move(() => this.view.zoomAt(ZOOM_STEP)),
      "zoom-out": () => this.move(() => this.view.zoomAt(1 / ZOOM_STEP)),
      "zoom-reset": () => this.move(() => this.view.reset()),
      "reset-image": () => this.set({ brightness: 1, contrast: 1 }),
      "model-cutoff": () => this.backToModel(),
    };
    actions[action]?.();
  }

  set(changes) {
    Object.assign(preferences, changes);
    refreshAll();
  }

  move(change) {
    change();
    this.draw({ scan: true });
  }

  backToModel() {
    this.setLesionCutoff(this.scene.header.lesion_cutoff);
    this.set({});
    this.report({ lesion_cutoff: this.lesionCutoff });
  }

  /** Show the heat map of a class; asked for the one that is shown, take it off. */
  chooseClass(of) {
    if (this.covered) return;
    const shown = preferences.heat && this.heatOf === of;
    showLayer("heat", !shown);
    this.set({ heatOf: of });
  }

  reveal() {
    this.report({ revealed: true });
    this.writeCover();
    this.draw();
    this.root.focus({ preventScroll: true });
  }

  /** A cross in the other pane, and the lesion probability under the pointer. */
  onPoint(stage, at) {
    const read = at && this.scene && !this.header.withheld && !this.covered && !preferences.hidden;
    const point = read && this.view.toGrid(at.x, at.y);
    const probability = read ? this.scene.probabilityAt(point.x, point.y) : null;
    this.part("pointer").textContent = probability === null ? "" : `probability here ${scoreWords(probability)}`;
    for (const one of this.stages) {
      const cross = one.querySelector(".cross");
      cross.hidden = !at || one === stage;
      if (at) cross.style.transform = `translate(${at.x}px, ${at.y}px)`;
    }
  }

  onKey(event) {
    if (!this.scene || event.ctrlKey || event.metaKey || event.altKey) return;
    if (ARROWS[event.key]) return this.onArrow(event, ARROWS[event.key]);
    const action = LETTERS[event.key.toLowerCase()];
    const heatmap = this.header.heatmaps[Number(event.key) - 1];
    if (event.key === "Escape") this.toggleHelp(false);
    else if (action) this.act(action);
    else if (heatmap && /^[1-9]$/.test(event.key)) this.chooseClass(heatmap.of);
    else return;
    if (event.key !== "Escape") event.preventDefault();
  }

  panBy(x, y) {
    this.move(() => this.view.panBy(x, y));
  }

  end() {
    super.end();
    this.scene?.close();
  }
}

/** Probability and heat map take turns: two colour scales mixed can be read on neither. */
function showLayer(layer, shown) {
  preferences[layer] = shown;
  const other = { heat: "probability", probability: "heat" }[layer];
  if (shown && other) preferences[other] = false;
}

/** Preferences are shared: where a page shows two scans, both follow. */
function refreshAll() {
  for (const viewer of shells.values()) {
    if (!viewer.scene) continue;
    viewer.writeControls();
    viewer.draw();
  }
}

export default function mount(place) {
  return mountAs((host) => new Viewer(host), place);
}
