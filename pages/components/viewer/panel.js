/*
 * The words and controls around the panes: writes what a viewer holds, decides nothing.
 */

/** What the reader likes to see: kept from scan to scan, and from page to page, until the tab is closed. */
const preferences = {
  outline: true,
  outlineOpacity: 1,
  fill: true,
  fillOpacity: 0.15,
  probability: false,
  probabilityOpacity: 0.5,
  heat: false,
  heatOpacity: 0.55,
  heatOf: null, // null: the likeliest class of each scan
  brightness: 1,
  contrast: 1,
  hidden: false,
  mode: "both",
};

class Panel extends Shell {
  constructor(root) {
    super(root);
    this.canvas = Object.fromEntries([...this.root.querySelectorAll("canvas")].map((one) => [one.dataset.canvas, one]));
    this.buildLayerRows();
    for (const ramp of this.root.querySelectorAll(".ramp")) {
      ramp.style.background = `linear-gradient(90deg, ${(ramp.dataset.ramp === "viridis" ? VIRIDIS : INFERNO).join(", ")})`;
    }
  }

  /** A row with a toggle, an opacity slider and its value for each layer. */
  buildLayerRows() {
    for (const row of this.root.querySelectorAll("[data-layer]")) {
      const { layer, name } = row.dataset;
      const toggle = element("input", { type: "checkbox" });
      toggle.dataset.toggle = layer;
      const label = element("label", { className: "what" }, toggle, name);
      const slider = element("input", { type: "range", min: 0, max: 1, step: 0.01 });
      slider.dataset.pref = `${layer}Opacity`;
      slider.setAttribute("aria-label", `Opacity of ${layer === "heat" ? "the heat map" : name.toLowerCase()}`);
      const track = element("span", { className: "track" }, slider);
      row.append(label, track, element("output"));
    }
  }

  writeHeader() {
    const { header } = this.scene;
    this.writePlace(header);
    this.put("version", header.model_version);
    this.canvas.scan.setAttribute("aria-label", header.label);
    this.canvas.under.setAttribute("aria-label", header.label);
    this.canvas.overlay.setAttribute("aria-label", `What model ${header.model_version} draws on it`);
    this.writeCover();
  }

  writeCover() {
    const { covered } = this;
    this.root.querySelector(".cover").hidden = !covered;
    this.root.toggleAttribute("data-covered", covered);
    for (const group of this.root.querySelectorAll(".group.model .rows, .group.model .quiet")) group.inert = covered;
    this.button("hide").disabled = covered;
    this.writeReadings();
  }

  writeClasses() {
    const { heatmaps } = this.scene.header;
    this.part("heat-rows").hidden = heatmaps.length === 0;
    this.part("heat-none").hidden = heatmaps.length > 0;
    const buttons = heatmaps.map(({ of }, index) => {
      const button = element("button", { type: "button", textContent: of, title: `Heat map of ${of} (${index + 1})` });
      button.dataset.of = of;
      return button;
    });
    this.part("classes").replaceChildren(...buttons);
  }

  writeControls() {
    const { header } = this.scene;
    for (const slider of this.root.querySelectorAll("[data-pref]")) {
      fillSlider(slider, preferences[slider.dataset.pref], percent);
    }
    for (const toggle of this.root.querySelectorAll("[data-toggle]")) toggle.checked = preferences[toggle.dataset.toggle];
    const twoDigits = (value) => value.toFixed(2);
    fillSlider(this.root.querySelector('[data-cutoff="lesion"]'), this.lesionCutoff, twoDigits);
    fillSlider(this.root.querySelector('[data-cutoff="heat"]'), this.heatCutoff, twoDigits);
    this.part("tick").style.setProperty("--at", (header.lesion_cutoff - 0.01) / 0.98);
    this.part("tick").title = `This model's cut-off: ${twoDigits(header.lesion_cutoff)}`;
    this.button("model-cutoff").disabled = this.lesionCutoff === header.lesion_cutoff;
    for (const button of this.root.querySelectorAll("[data-of]")) {
      button.setAttribute("aria-pressed", preferences.heat && button.dataset.of === this.heatOf);
      button.toggleAttribute("data-chosen", button.dataset.of === this.heatOf);
    }
    this.root.dataset.mode = preferences.mode;
    for (const button of this.root.querySelectorAll("button[data-mode]")) {
      button.setAttribute("aria-pressed", button.dataset.mode === preferences.mode);
    }
    this.root.toggleAttribute("data-hidden", preferences.hidden);
    this.part("hidden-note").hidden = !preferences.hidden;
    this.part("hide-word").textContent = preferences.hidden ? "Show model" : "Hide model";
    this.button("hide").setAttribute("aria-pressed", preferences.hidden);
    const { brightness, contrast } = preferences;
    const filter = brightness === 1 && contrast === 1 ? "" : `brightness(${brightness}) contrast(${contrast})`;
    for (const canvas of [this.canvas.scan, this.canvas.under]) canvas.style.filter = filter;
    this.writeReadings();
  }

  /** Numbers that say something about the finding: none of them while it is covered. */
  writeReadings() {
    const { withheld, said } = this.scene.header;
    const quiet = this.covered || withheld;
    const heatmap = this.scene.heatmap(this.heatOf);
    const area = withheld ? "no answer" : `Lesion area ${percent(this.scene.lesionShare(this.lesionCutoff), 1)} of image`;
    this.put("area", this.covered ? "" : area);
    this.put("said", quiet ? "" : said);
    if (quiet) this.part("pointer").textContent = "";
    if (!heatmap) return;
    const measure = heatmap.of === "lesion mask" ? "mean lesion probability" : "model score";
    const by = this.scene.header.heat_of_first ? " by the first network" : "";
    this.part("heat-score").textContent = quiet ? "" : `${heatmap.of}: ${measure}${by} ${scoreWords(heatmap.score)}`;
    this.part("heat-dimmed").textContent = !quiet && heatmap.score < DIM_BELOW_SCORE ? "score under 5 %: dimmed" : "";
    const { heat_first: likeliest, heat_worth: worth } = this.scene.header;
    const grid = heatmap.grid.join(" × ");
    const isMeasured = worth && heatmap.of === likeliest;
    this.part("heat-note").textContent = isMeasured ? `relative, grid ${grid}, no probability; ${worth}` : `relative, coarse grid (${grid}), not a probability`;
  }
}
