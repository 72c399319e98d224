/*
 * The words and numbers around the panes: figures that follow the cut-off, the curve, who the scan is. Writes what a
 * comparison holds, decides nothing.
 */

const FIGURES = { dice: "Dice", iou: "IoU", precision: "Precision", recall: "Recall" };
const CURVE = { width: 280, height: 112 }; // the view box in compare_viewer.html

const count = (value) => Math.round(value).toLocaleString("en");
const three = (value) => (Number.isNaN(value) ? "n/a" : value.toFixed(3));

function taughtName({ readings, taught }) {
  if (readings.length === 1) return "THE MODEL";
  return taught.every(Boolean) ? "BOTH MODELS" : readings[taught.indexOf(true)]?.version;
}

class Figures extends Shell {
  writeHeader() {
    const { header } = this.case;
    this.writePlace(header);
    this.put("said", header.readings.map(({ version, said }) => said && `${version}: ${said}`).filter(Boolean).join("; "));
    const [{ withheld }] = header.readings;
    const noLesion = header.truth !== null && this.case.curves[0].lesion === 0;
    this.part("no-truth").hidden = header.truth !== null && !noLesion;
    this.part("no-truth").textContent = noLesion ? "The reference has no lesion, so no overlap is defined: what counts is whether anything is outlined." : header.no_truth;
    this.part("hand-over").hidden = !header.store;
    this.part("taught").hidden = !header.taught.includes(true);
    this.part("taught").textContent = `TAUGHT ${taughtName(header)}`;
    header.readings.forEach(({ version }, place) => (this.part(`version-${place}`).textContent = version));
    this.root.querySelector('button[data-mode="versions"]').hidden = header.readings.length < 2;
    const edit = this.root.querySelector('button[data-mode="edit"]');
    edit.disabled = !header.live;
    edit.title = header.live ? "Correct the mask (E)" : "Masks are corrected on scans of up to 4 megapixels";
    this.root.querySelector('[data-start="truth"]').disabled = header.truth === null;
    this.button("blink").disabled = this.root.querySelector('button[data-mode="difference"]').disabled = header.truth === null;
    this.part("curve-block").hidden = header.truth === null || noLesion || withheld;
    this.part("legend").hidden = header.truth === null || withheld;
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
    const buttons = this.header.readings[0].heatmaps.map(({ of }) => {
      const button = element("button", { type: "button", textContent: of, title: `Heat map of ${of}` });
      button.dataset.heat = of;
      return button;
    });
    this.part("classes").replaceChildren(...buttons);
    this.part("classes").hidden = buttons.length === 0;
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
      const figures = counts && !reading.header.withheld ? figuresOf(counts) : null; // no answer is neither right nor wrong
      writeFour(block, figures);
      this.writeDistance(block.querySelector('[data-figure="hd95"]'), reading.header, cutoff);
      const marked = counts ? counts.hit + counts.extra : countAbove(reading.index, at + 0.5) * scale;
      const outlined = percent(marked / (this.case.header.width * this.case.header.height), 1);
      const fact = reading.header.withheld ? "no answer" : `${outlined} of image`;
      this.part(place ? "other-fact" : "prediction-fact").textContent = figures ? `${fact} · Dice ${three(figures.dice)}` : fact;
      if (place === 0 && counts) {
        for (const one of ["hit", "missed", "extra"]) this.part(`sum-${one}`).textContent = count(counts[one]);
        const share = (counts.hit + counts.missed) / (this.case.header.width * this.case.header.height);
        this.part("truth-fact").textContent = share ? `${percent(share, 1)} of image` : "no lesion";
      }
    });
    if (!this.case.truth) this.part("truth-fact").textContent = "none";
  }

  /** Distances come from the server, once the slider is let go. */
  writeDistance(place, { distance, withheld }, cutoff) {
    const known = this.case.truth && distance && distance.cutoff === cutoff;
    place.classList.toggle("stale", !known);
    place.textContent = !this.case.truth || withheld ? "n/a" : !known ? "…" : distance.hd95_px === null ? "n/a" : `${distance.hd95_px.toFixed(1)} px`;
    place.dataset.value = known ? String(distance.hd95_px) : "";
  }

  writeCurve() {
    const svg = this.root.querySelector(".curve");
    const { width: wide, height: high } = CURVE;
    const shapes = [0, 1, 2, 3, 4].map((n) => svgLine("grid", 0, (n * high) / 4, wide, (n * high) / 4));
    this.case.curves.forEach((curve, place) => {
      if (!curve || this.case.readings[place].header.withheld) return;
      const { cutoffs, cutoff } = this.case.readings[place].header;
      for (const name of ["iou", "dice"]) {
        const points = cutoffs.flatMap((one, at) => {
          const value = figuresOf(countsAt(curve, at))[name];
          return Number.isNaN(value) ? [] : [`${(wide * one).toFixed(2)},${(high * (1 - value)).toFixed(2)}`];
        });
        const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
        line.setAttribute("points", points.join(" "));
        line.setAttribute("class", place ? `${name} second` : name);
        shapes.push(line);
      }
      const upright = (kind, at) => svgLine(kind, wide * at, 0, wide * at, high);
      if (place === 0) shapes.push(upright("now", this.cutoffOf(0)), upright("own", cutoff));
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
    const { withheld } = this.case.readings[0].header;
    const heatmap = withheld ? null : this.case.readings[0].heatmap(this.heatOf);
    this.part("heat-of").textContent = heatmap ? `of ${heatmap.of}` : "none";
    const { fit } = heatmap ?? {};
    this.part("heat-fact").textContent = !fit || fit.energy_inside === null ? "" : `${percent(fit.energy_inside)} inside the truth, peak ${fit.peak_inside ? "inside" : "outside"}`;
  }
}

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
