/*
 * The viewer: gestures, keys and what Streamlit hears. One Viewer lives as long as its place on the page;
 * Streamlit calls the default export again at every run with fresh data.
 */

const NARROW_PX = 640; // below it the panes stack and the controls fold
const PAN_STEP_PX = 60;
const KEYBOARD_PAUSE_MS = 400; // a slider moved by keys reports once the keys rest
const BRIEF_MS = 0;

const viewers = new Map(); // by the element Streamlit gives
let active = null; // the viewer that keys go to, when a page shows several

class Viewer extends Panel {
  constructor(host) {
    super(host.querySelector(".viewer"));
    this.view = new View();
    this.scene = null;
    this.ticket = 0;
    this.reports = {}; // what the reader chose, by scan; Streamlit holds the same
    this.stale = { scan: true, overlay: true };
    this.ending = new AbortController();
    this.stages = [...this.root.querySelectorAll(".stage")];
    this.listen();
    active ??= this;
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

  step(by) {
    const { position, count, scan_id: scanId } = this.scene.header;
    if (position + by < 1 || position + by > count) return;
    this.ports.setTriggerValue("step", { scan_id: scanId, by });
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
    const { signal } = this.ending;
    const on = (target, name, listener) => target.addEventListener(name, listener, { signal });
    on(this.root, "input", (event) => this.onInput(event.composedPath()[0]));
    on(this.root, "change", (event) => this.onRelease(event.composedPath()[0]));
    on(this.root, "click", (event) => this.onClick(event));
    on(this.root, "keydown", (event) => (this.byKeyboard = event.key.length > 0));
    on(this.root, "pointerdown", () => {
      this.byKeyboard = false;
      active = this;
    });
    on(this.root, "pointerenter", () => (active = this));
    on(this.root, "pointerup", (event) => this.giveKeysBack(event.target));
    on(document, "keydown", (event) => this.onKey(event));
    on(document, "fullscreenchange", () => this.draw({ scan: true }));
    const hooks = { moved: () => this.draw({ scan: true }), pointed: (stage, at) => this.onPoint(stage, at) };
    listenToGestures(this.stages, this.view, hooks, signal);
    this.sizes = new ResizeObserver(() => this.onResize());
    for (const one of [this.root, ...this.stages]) this.sizes.observe(one);
  }

  onResize() {
    const narrow = this.root.clientWidth < NARROW_PX;
    if (narrow !== this.narrow) {
      this.narrow = narrow;
      this.root.dataset.size = narrow ? "narrow" : "wide";
      for (const group of this.root.querySelectorAll(".group")) group.open = !narrow || group.dataset.group === "lesion";
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

  /** After a mouse let go of a slider or button, the arrow keys step through scans again. */
  giveKeysBack(target) {
    if (target.closest("input, button, label, summary")) setTimeout(() => this.root.focus({ preventScroll: true }));
  }

  onClick(event) {
    const button = event.target.closest("button");
    if (!button || !this.scene) return;
    if (event.target.closest("summary")) event.preventDefault();
    if (button.dataset.of) this.chooseClass(button.dataset.of);
    else if (button.dataset.mode) this.set({ mode: button.dataset.mode });
    else this.act(button.dataset.action);
  }

  act(action) {
    const actions = {
      previous: () => this.step(-1),
      next: () => this.step(1),
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

  toggleHelp(open = this.part("help").hidden) {
    this.part("help").hidden = !open;
    this.root.querySelector('[data-action="help"]').setAttribute("aria-expanded", open);
  }

  /** Where a browser cannot show an element full screen (iPhone), fill the window instead. */
  async toggleFullScreen() {
    if (document.fullscreenElement) await document.exitFullscreen();
    else if (this.root.requestFullscreen) await this.root.requestFullscreen().catch(() => {});
    else this.root.toggleAttribute("data-filling");
  }

  /** A cross in the other pane, and the lesion probability under the pointer. */
  onPoint(stage, at) {
    const read = at && this.scene && !this.covered && !preferences.hidden;
    const point = read && this.view.toGrid(at.x, at.y);
    const probability = read ? this.scene.probabilityAt(point.x, point.y) : null;
    this.part("pointer").textContent = probability === null ? "" : `probability here ${probability.toFixed(2)}`;
    for (const one of this.stages) {
      const cross = one.querySelector(".cross");
      cross.hidden = !at || one === stage;
      if (at) cross.style.transform = `translate(${at.x}px, ${at.y}px)`;
    }
  }

  onKey(event) {
    if (active !== this || !this.scene || event.defaultPrevented) return;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const target = event.composedPath()[0];
    if (isTyping(target)) return;
    const arrow = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (arrow) {
      if (!usesArrows(target)) this.onArrow(event, arrow);
      return;
    }
    const letters = { h: "hide", f: "full", "?": "help", 0: "zoom-reset", "+": "zoom-in", "=": "zoom-in", "-": "zoom-out", _: "zoom-out" };
    const action = letters[event.key.toLowerCase()];
    const heatmap = this.scene.header.heatmaps[Number(event.key) - 1];
    if (event.key === "Escape") this.toggleHelp(false);
    else if (action) this.act(action);
    else if (heatmap && /^[1-9]$/.test(event.key)) this.chooseClass(heatmap.of);
    else return;
    if (event.key !== "Escape") event.preventDefault();
  }

  onArrow(event, [x, y]) {
    if (event.shiftKey) this.move(() => this.view.panBy(x * PAN_STEP_PX, y * PAN_STEP_PX));
    else if (x && !event.repeat && this.scene.header.count > 1) this.step(-x);
    else return;
    event.preventDefault();
  }

  end() {
    this.ending.abort();
    this.sizes.disconnect();
    clearTimeout(this.reporting);
    cancelAnimationFrame(this.frame);
    this.scene?.close();
    if (active === this) active = null;
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
  for (const viewer of viewers.values()) {
    if (!viewer.scene) continue;
    viewer.writeControls();
    viewer.draw();
  }
}

export default function mount({ data, parentElement, setStateValue, setTriggerValue }) {
  if (!viewers.has(parentElement)) viewers.set(parentElement, new Viewer(parentElement));
  const viewer = viewers.get(parentElement);
  if (data) viewer.show(data, { setStateValue, setTriggerValue }).catch((error) => viewer.writeFailure(error));
  return () => {
    viewers.get(parentElement)?.end();
    viewers.delete(parentElement);
  };
}
