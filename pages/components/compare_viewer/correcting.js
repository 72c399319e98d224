/*
 * Correcting the mask: where it starts from, its tools, what it measures, and where it goes.
 */

const TOOLS = ["brush", "eraser", "polygon"];
const MAX_BRUSH_PX = 60; // across, as the slider offers

let handedOver = 0; // masks so far; each bears its number, by which the page says that it was kept

class Correcting extends Painting {
  startEditing() {
    const { header, width, height, readings } = this.case;
    this.editor.leave();
    if (preferences.mode !== "edit") return;
    const { cutoffs } = readings[0].header;
    const begin = () => ({ mask: readings[0].maskAt(this.placeOf(0)), width, height });
    this.editor.take(this.editor.draft(this.draftId, cutoffs[this.placeOf(0)], begin));
  }

  get draftId() {
    return `${this.case.header.scan_id} ${this.case.readings[0].header.version}`;
  }

  startFrom(source) {
    const { readings, truth } = this.case;
    const masks = {
      prediction: () => readings[0].maskAt(this.placeOf(0)),
      truth: () => truth,
      nothing: () => new Uint8Array(readings[0].index.length),
    };
    this.editor.current.change((mask) => mask.set(masks[source]()));
    if (source === "prediction") this.editor.current.cutoff = readings[0].header.cutoffs[this.placeOf(0)];
    this.writeEditing();
    this.draw();
  }

  /** Back to the prediction; undo brings the correction back. */
  discard() {
    this.startFrom("prediction");
    this.editor.current.discard();
    this.writeUnsaved();
  }

  /** Whatever is shown of the scan, and in full screen too. */
  writeUnsaved() {
    const unsaved = Boolean(drafts.get(this.draftId)?.unsaved);
    this.part("unsaved").hidden = !unsaved || preferences.mode === "edit"; // there the mask's own title says it
    this.part("edit-unsaved").textContent = unsaved ? "not saved yet" : "";
    this.button("discard").disabled = !unsaved;
  }

  writeEditing() {
    this.writeUnsaved();
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
    slider.setAttribute("aria-valuetext", this.part("brush-value").textContent);
    this.button("undo").disabled = current.done.length === 0;
    this.button("redo").disabled = current.undone.length === 0;
    let pixels = 0;
    for (const one of current.mask) pixels += one;
    this.part("edit-fact").textContent = `${count(pixels)} px, ${percent(pixels / current.mask.length, 1)} of image`;
    if (!this.case.truth) return;
    const block = this.part("own-figures");
    writeFour(block, figuresOf(countMasks(current.mask, this.case.truth)));
    block.querySelector('[data-figure="pixels"]').textContent = count(pixels);
  }

  async download() {
    const draft = this.editor.current;
    const { mask, width, height, step } = draft;
    const address = URL.createObjectURL(await maskPng(mask, width, height));
    const link = element("a", { href: address, download: this.case.header.mask_name });
    link.click();
    draft.saved = step;
    this.writeUnsaved();
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
  }

  /** Give the mask to the page, which asks who, and whether patient text is in the scan. */
  async handOver() {
    await this.leaveFullScreen();
    const { header, readings } = this.case;
    const { mask, width, height, cutoff, step } = this.editor.current; // the cut-off that it began from
    this.editor.current.handed = { number: (handedOver += 1), step };
    const { number } = this.editor.current.handed;
    const text = base64(await deflate(packBits(mask)));
    const { version } = readings[0].header;
    this.ports.setTriggerValue("edited", { scan_id: header.scan_id, width, height, mask: text, version, cutoff, number });
  }

  /** The page says which masks were kept; a dialog that was closed keeps none. */
  hearKept(numbers) {
    for (const one of drafts.values()) if (numbers.includes(one.handed?.number)) one.saved = one.handed.step;
  }

  travel(way) {
    if (!this.editor.current) return;
    this.editor.current[way]();
    this.writeEditing();
    this.draw();
  }

  chooseTool(tool) {
    this.editor.choose(tool);
    this.writeEditing();
  }

  setMoving(moving) {
    this.editor.moving = moving;
    this.root.toggleAttribute("data-moving", moving);
    if (moving) this.editor.hideCursor();
  }

  /** Keys that mean something only while a mask is corrected. */
  onEditingKey(key) {
    const tool = TOOLS[Number(key) - 1];
    if (tool) this.chooseTool(tool);
    else if (key === "[" || key === "]") {
      this.editor.radius = Math.min(MAX_BRUSH_PX / 2, Math.max(0.5, this.editor.radius + (key === "]" ? 1 : -1)));
      this.writeEditing();
    } else if (key === "enter") this.editor.closePolygon();
    else return false;
    return true;
  }

  /** Undo and redo by keys. */
  onControlKey(event, key) {
    if (!["z", "y"].includes(key)) return;
    this.travel(key === "y" || event.shiftKey ? "redo" : "undo");
    event.preventDefault();
  }
}
