/*
 * The comparison: what Streamlit sends and hears, views, split line, blinking, and what buttons and keys do.
 * Scripts are joined into one module (compare_viewer.py); View, the gestures and Shell are the viewer's.
 */

const BLINK_MS = 700; // below 1.5 a second: well under what may harm
const TAKES_SPACE = "button, input, select, summary, a, [role=button], [role=switch], [role=tab]"; // as its own key
const MODES = ["panels", "difference", "split", "versions"];

const preferences = { mode: "panels", split: null, both: true, fill: true, brightness: 1, contrast: 1, heatOf: null };

class Compare extends Correcting {
  constructor(host) {
    super(host.querySelector(".compare"));
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
  }

  // ---- data from Streamlit -------------------------------------------------------------------------------------

  async show(bytes, ports) {
    this.ports = ports;
    const message = openMessage(bytes);
    const ticket = (this.ticket = (this.ticket ?? 0) + 1);
    this.root.style.setProperty("--viewer-height", `${message.height}px`);
    keepDraftsOf(message.header.session);
    this.hearKept(message.header.kept);
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

  get header() {
    return this.case.header;
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

  // ---- what is shown -------------------------------------------------------------------------------------------

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

  // ---- what the reader does ------------------------------------------------------------------------------------

  listen() {
    const { signal } = this.ending;
    const on = this.listenToShell({ redraw: () => this.draw() });
    on(this.root, "input", (event) => this.onInput(event.target));
    on(this.root, "change", (event) => event.target.dataset.cutoff && this.report(this.byKeyboard ? KEYBOARD_PAUSE_MS : 0));
    on(this.root, "click", (event) => this.onClick(event));
    on(document, "keyup", (event) => event.key === " " && this.setMoving(false));
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
    const move = (change) => {
      const [name, { view }] = this.shownPane();
      change(view);
      this.link(name);
      this.draw();
    };
    const actions = {
      previous: () => this.stepFrom(this.header, -1),
      next: () => this.stepFrom(this.header, 1),
      blink: () => this.blink(),
      edit: () => this.setMode(preferences.mode === "edit" ? "panels" : "edit"),
      undo: () => this.travel("undo"),
      redo: () => this.travel("redo"),
      discard: () => this.discard(),
      download: () => this.download(),
      "hand-over": () => this.handOver(),
      full: () => this.toggleFullScreen(),
      help: () => this.toggleHelp(),
      hide: () => this.hide(),
      "zoom-in": () => move((view) => view.zoomAt(ZOOM_STEP)),
      "zoom-out": () => move((view) => view.zoomAt(1 / ZOOM_STEP)),
      "zoom-reset": () => move((view) => view.reset()),
    };
    return actions[action]?.();
  }

  set(changes) {
    Object.assign(preferences, changes);
    this.write();
  }

  hide() {
    this.hidden = !this.hidden;
    this.part("hidden-note").hidden = !this.hidden;
    this.draw();
  }

  /** A pane that is on screen, as [name, pane]. */
  shownPane() {
    return [...this.panes].find(([, { stage }]) => stage.clientWidth);
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
      this.editor.leave();
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

  onKey(event) {
    if (!this.case || event.altKey) return;
    const editing = preferences.mode === "edit";
    const key = event.key.toLowerCase();
    if (event.ctrlKey || event.metaKey) return editing ? this.onControlKey(event, key) : undefined;
    if (ARROWS[event.key]) return this.onArrow(event, ARROWS[event.key]);
    if (key === " " && editing) {
      if (!event.composedPath()[0].closest?.(TAKES_SPACE)) this.setMoving(true), event.preventDefault();
      return;
    }
    if (this.onLetter(key, editing)) event.preventDefault();
  }

  onLetter(key, editing) {
    const action = { ...LETTERS, b: "blink", e: "edit" }[key];
    const mode = MODES[Number(key) - 1];
    if (action) this.act(action);
    else if (editing && this.onEditingKey(key)) return true;
    else if (!editing && mode) this.setMode(mode);
    else if (key === "escape") {
      this.toggleHelp(false);
      this.editor.choose(this.editor.tool); // forgets an open polygon
    } else return false;
    return true;
  }

  panBy(x, y) {
    const [name, { view }] = this.shownPane();
    view.panBy(x, y);
    this.link(name);
    this.draw();
  }

  end() {
    super.end();
    this.editor.end();
    this.stopBlinking();
    this.case?.close();
  }
}

/** On the page without a scan there is nothing to show, and what was drawn on scans that are gone is let go. */
export default function mount(place) {
  if (place.data?.session) return keepDraftsOf(place.data.session);
  return mountAs((host) => new Compare(host), place);
}
