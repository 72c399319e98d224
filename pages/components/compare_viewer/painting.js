/*
 * What the panes show: scan, masks, heat map, difference, split line, and the mask that is being corrected.
 */

class Painting extends Figures {
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
      truth: () => {
        this.drawTruth(context, view);
        drawNumbers(context, this.case.header.lesions, view);
      },
      prediction: () => this.drawReading(context, view, 0),
      other: () => this.case.readings[1] && this.drawReading(context, view, 1),
      heat: () => this.drawHeat(context, view),
      difference: () => this.case.truth && this.drawDifference(context, view),
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

  drawDifference(context, view) {
    drawPixels(context, this.case.differenceAt(this.placeOf(0)), view);
    drawNumbers(context, this.case.header.lesions, view);
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
    const share = Math.round(preferences.split ?? 50);
    divider.setAttribute("aria-valuenow", share);
    divider.setAttribute("aria-valuetext", `truth on the left ${share} %`);
    const shown = this.blinking ? this.blinkShows : null;
    this.root.toggleAttribute("data-blinking", Boolean(this.blinking));
    this.button("blink").setAttribute("aria-pressed", Boolean(this.blinking));
    this.part("side-left").lastChild.textContent = shown === "prediction" ? "Prediction" : "Truth";
    this.part("side-left").firstChild.className = `key ${shown === "prediction" ? "prediction" : "truth"}`;
    this.part("split-caption").textContent = shown ? "Truth and prediction in turn (B stops)" : "Truth left of the line, prediction right of it";
  }
}
