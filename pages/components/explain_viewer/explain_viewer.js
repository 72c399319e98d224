/*
 * Small multiples: the scan and one pane for each method, with one view, one cut-off and one colour scale.
 * Scripts are joined into one module (explain_viewer.py); Scene, View, drawing and gestures are the viewer's.
 */

const NARROW_PX = 640;
const PANE_PX = 260; // a pane is at least as wide, except on a phone
const OUTLINE_ALONE = { outline: true, outlineOpacity: 1 };

const settings = { opacity: 0.55, cutoff: null, outline: true }; // kept from scan to scan until the tab is closed
const mounted = new Map();

class Multiples {
  constructor(host) {
    this.root = host.querySelector(".explain");
    this.view = new View();
    this.panes = [];
    this.paths = new Map();
    this.ending = new AbortController();
    const { signal } = this.ending;
    this.root.querySelector(".ramp").style.background = `linear-gradient(90deg, ${INFERNO.join(", ")})`;
    this.root.addEventListener("input", (event) => this.onInput(event.composedPath()[0]), { signal });
    this.root.addEventListener("click", (event) => this.onClick(event), { signal });
    this.sizes = new ResizeObserver(() => this.onResize());
    this.sizes.observe(this.root);
  }

  part(name) {
    return this.root.querySelector(`[data-part="${name}"]`);
  }

  async show(bytes) {
    const message = openMessage(bytes);
    const ticket = (this.ticket = (this.ticket ?? 0) + 1);
    if (this.scene?.isSameAs(message.header)) {
      this.scene.header = message.header; // another cut-off, or EigenCAM of another class: other words, the same pixels
      this.build();
      this.onResize();
      return;
    }
    const scene = await Scene.from(message);
    if (ticket !== this.ticket || this.ending.signal.aborted) {
      scene.close();
      return;
    }
    const old = this.scene;
    this.scene = scene;
    this.view.grid = { width: scene.width, height: scene.height };
    if (old?.header.scan_id !== scene.header.scan_id) this.view.reset();
    old?.close();
    settings.cutoff ??= scene.header.heat_cutoff;
    this.root.style.setProperty("--aspect", scene.width / scene.height);
    this.build();
    this.writeSettings();
    this.onResize();
    this.root.dataset.ready = scene.header.scan_id;
    this.root.dataset.maps = scene.header.heatmaps.length;
  }

  /** One pane for the scan and one for each map. */
  build() {
    this.gestures?.abort();
    this.gestures = new AbortController();
    const { header } = this.scene;
    const bare = this.pane({ title: "Scan", score: "", does: `Outlined: what model ${header.model_version} calls lesion.`, label: header.label });
    const maps = header.heatmaps.map((map) => this.pane({ title: map.of, score: scoreOf(map, header.of_first), does: map.does, label: map.label, map }));
    this.panes = [bare, ...maps];
    this.part("multiples").replaceChildren(...this.panes.map((pane) => pane.figure));
    const stages = this.panes.map((pane) => pane.stage);
    listenToGestures(stages, this.view, { moved: () => this.draw(), pointed: (stage, at) => this.onPoint(stage, at) }, this.gestures.signal);
  }

  pane({ title, score, does, label, map = null }) {
    const under = element("canvas", { className: "picture" });
    const overlay = element("canvas", { className: "drawn" });
    under.setAttribute("role", "img");
    under.setAttribute("aria-label", label);
    overlay.setAttribute("aria-hidden", "true");
    const cross = element("i", { className: "cross", hidden: true });
    const stage = element("div", { className: "stage" }, under, overlay, cross);
    stage.dataset.testid = map ? `stage-${title}` : "stage-scan-alone";
    if (map && !map.found) stage.append(element("span", { className: "empty", textContent: "No evidence found" }));
    const head = element("div", { className: "head" }, element("b", { textContent: title }), element("span", { textContent: score }));
    const caption = element("figcaption", {}, head, element("p", { className: "does", textContent: does }));
    if (map?.found && map.asks && map.score < DIM_BELOW_SCORE) caption.append(element("p", { className: "warn", textContent: "score under 5 %: dimmed" }));
    return { figure: element("figure", {}, stage, caption), stage, under, overlay, cross, map };
  }

  // ---- drawing -------------------------------------------------------------------------------------------------

  draw() {
    this.frame ??= requestAnimationFrame(() => this.drawNow());
  }

  drawNow() {
    cancelAnimationFrame(this.frame);
    this.frame = null;
    const { scene, view } = this;
    if (!scene) return;
    const ratio = window.devicePixelRatio || 1;
    const lesionPath = this.path("lesion", scene.probability.field, scene.header.lesion_cutoff);
    for (const { under, overlay, map } of this.panes) {
      drawScan(under, scene, view, ratio);
      drawOverlay(overlay, scene, view, ratio, { layers: settings.outline ? OUTLINE_ALONE : {}, lesionPath, heat: map?.found ? this.heat(map) : null });
    }
    this.part("zoom").textContent = percent(view.zoom);
    this.root.toggleAttribute("data-zoomed", view.zoom > 1.001);
  }

  heat(map) {
    const layer = this.scene.heatLayer(map.of);
    const dim = map.asks && map.score < DIM_BELOW_SCORE ? 0.35 : 1;
    return { canvas: layer.canvas, path: this.path(map.of, layer.field, settings.cutoff), opacity: settings.opacity * dim };
  }

  /** Found once for each cut-off: panning draws every pane in every frame. */
  path(of, field, cutoff) {
    const known = this.paths.get(of);
    if (known?.field === field && known.cutoff === cutoff) return known.path;
    const path = pathAt(field, cutoff);
    this.paths.set(of, { field, cutoff, path });
    return path;
  }

  writeSettings() {
    for (const name of ["opacity", "cutoff"]) {
      const words = name === "opacity" ? percent : (value) => value.toFixed(2);
      fillSlider(this.root.querySelector(`[data-setting="${name}"]`), settings[name], words);
    }
    this.root.querySelector('[data-setting="outline"]').checked = settings.outline;
  }

  // ---- what the reader does ------------------------------------------------------------------------------------

  onInput(input) {
    const { setting } = input.dataset;
    if (!setting || !this.scene) return;
    settings[setting] = input.type === "checkbox" ? input.checked : Number(input.value);
    this.writeSettings();
    this.draw();
  }

  onClick(event) {
    const action = event.target.closest("button")?.dataset.action;
    const actions = {
      "zoom-in": () => this.view.zoomAt(ZOOM_STEP),
      "zoom-out": () => this.view.zoomAt(1 / ZOOM_STEP),
      "zoom-reset": () => this.view.reset(),
    };
    if (!action || !this.scene) return;
    actions[action]();
    this.draw();
  }

  onPoint(stage, at) {
    for (const { stage: one, cross } of this.panes) {
      cross.hidden = !at || one === stage;
      if (at) cross.style.transform = `translate(${at.x}px, ${at.y}px)`;
    }
  }

  onResize() {
    const narrow = this.root.clientWidth < NARROW_PX;
    this.root.dataset.size = narrow ? "narrow" : "wide";
    const room = narrow ? 2 : Math.max(1, Math.floor(this.root.clientWidth / PANE_PX));
    const rows = Math.ceil(this.panes.length / room);
    this.root.style.setProperty("--columns", Math.ceil(this.panes.length / Math.max(rows, 1)) || 1); // rows equally full
    const stage = this.panes[0]?.stage;
    if (!stage?.clientWidth) return;
    this.view.pane = { width: stage.clientWidth, height: stage.clientHeight };
    this.view.keepInside();
    this.drawNow(); // in the same frame, or the panes would flash
  }

  writeFailure(error) {
    console.error("explanations:", error);
    this.part("failed").hidden = false;
  }

  end() {
    this.ending.abort();
    this.gestures?.abort();
    this.sizes.disconnect();
    cancelAnimationFrame(this.frame);
    this.scene?.close();
  }
}

function scoreOf({ explains, score, asks }, ofFirst) {
  if (!asks) return "of no class";
  const measure = explains === "lesion mask" ? "mean lesion probability" : "model score";
  return `${explains}: ${measure}${ofFirst ? " by the first network" : ""} ${scoreWords(score)}`;
}

export default function mount({ data, parentElement }) {
  if (!mounted.has(parentElement)) mounted.set(parentElement, new Multiples(parentElement));
  const multiples = mounted.get(parentElement);
  if (data) multiples.show(data).catch((error) => multiples.writeFailure(error));
  return () => {
    mounted.get(parentElement)?.end();
    mounted.delete(parentElement);
  };
}
