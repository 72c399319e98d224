/*
 * Correcting a mask: brush, eraser and polygon on the scan's own pixels, undo and redo. The scan itself is never
 * changed. One Editor serves one component; the drafts outlast it.
 */

const MAX_DRAFTS = 8; // beside those that are not saved, of which none is let go
const MAX_UNDO = 100;
const CLOSE_PX = 10; // a click this near to the first corner closes the polygon

/*
 * By scan and version, in this tab's memory alone: Streamlit ends the component with every switch of the page, and
 * nothing of a patient goes to a disk. They are of one session's scans, and go with them.
 */
export const drafts = new Map();
let draftsOf = null; // names the session's list of scans

function keepDraftsOf(session) {
  if (session !== draftsOf) drafts.clear();
  draftsOf = session;
}

/* The browser asks before the tab is closed or loaded anew: after that a correction is nowhere. */
addEventListener("beforeunload", (event) => {
  if ([...drafts.values()].some((one) => one.unsaved)) event.preventDefault();
});

class Draft {
  constructor(mask, width, height) {
    Object.assign(this, { mask, width, height, done: [], undone: [], path: null, forgotten: null, saved: null });
  }

  /** The step that led to this mask. */
  get step() {
    return this.done.at(-1) ?? this.forgotten;
  }

  get unsaved() {
    return this.step !== this.saved;
  }

  /** The mask is the prediction again; undo would bring the correction back. */
  discard() {
    this.discarded = this.saved = this.step;
  }

  get isDiscarded() {
    return Boolean(this.discarded) && this.step === this.discarded;
  }

  paint() {
    const colour = pixelOf(EDITED_COLOUR, 0.28);
    this.layer ??= new Layer(this.width, this.height);
    const { pixels } = this.layer;
    for (let i = 0; i < pixels.length; i += 1) pixels[i] = this.mask[i] ? colour : 0;
    this.layer.put();
    this.path = null;
  }

  outline() {
    this.path ??= pathAt(makeField(this.mask, this.height, this.width), 0.5);
    return this.path;
  }

  /** Remember what changed since `before`. */
  commit(before) {
    const change = difference(before, this.mask, this.width);
    if (!change) return;
    this.done.push(change);
    if (this.done.length > MAX_UNDO) this.forgotten = this.done.shift();
    this.undone = [];
  }

  change(act) {
    const before = this.mask.slice();
    act(this.mask);
    this.commit(before);
    this.paint();
  }

  travel(from, to, which) {
    const change = from.pop();
    if (!change) return;
    paste(this.mask, this.width, change, change[which]);
    to.push(change);
    this.paint();
  }

  undo() {
    this.travel(this.done, this.undone, "before");
  }

  redo() {
    this.travel(this.undone, this.done, "after");
  }
}

class Editor {
  /** `hooks`: view() the pane's view, changed() something to draw, finished() the mask is another one. */
  constructor(pane, hooks, signal) {
    this.stage = pane.querySelector(".stage");
    this.cursor = pane.querySelector(".cursor");
    this.hooks = hooks;
    this.tool = "brush";
    this.radius = 9;
    this.corners = [];
    this.fingers = new Map();
    this.hand = new Hand(this, pane.querySelector(".hand"), signal);
    const on = (name, listener) => pane.addEventListener(name, listener, { signal, capture: true });
    on("pointerdown", (event) => this.press(event));
    on("pointermove", (event) => this.move(event));
    on("pointerup", (event) => this.lift(event));
    on("pointercancel", (event) => this.lift(event, true));
    on("pointerleave", () => this.hideCursor());
    on("dblclick", (event) => {
      event.stopPropagation(); // would show the whole scan
      this.closePolygon(event.altKey);
    });
  }

  /** The reader's mask of a scan and a version; one that was not touched follows the cut-off. */
  draft(id, cutoff, begin) {
    const before = drafts.get(id);
    const untouched = before && ((!before.done.length && !before.undone.length) || before.isDiscarded);
    if (!before || (untouched && before.cutoff !== cutoff)) {
      const { mask, width, height } = begin();
      drafts.set(id, Object.assign(new Draft(mask, width, height), { cutoff }));
      const spare = [...drafts].filter(([other, one]) => other !== id && !one.unsaved);
      if (spare.length >= MAX_DRAFTS) drafts.delete(spare[0][0]);
    }
    return drafts.get(id);
  }

  /** Correct this draft from now on. */
  take(draft) {
    this.current = draft;
    draft.paint();
    this.hand.show();
  }

  /** Correct nothing until another draft is taken; what is being painted becomes a step to undo. */
  leave() {
    if (this.before) this.current.commit(this.before);
    if (this.current) this.current.layer = null; // many drafts are held, one is drawn
    Object.assign(this, { current: null, before: null, corners: [] });
    this.hand.forget();
  }

  /** The page goes: what is not saved waits for its scan to be opened again. */
  end() {
    this.leave();
    for (const [id, one] of drafts) if (!one.unsaved) drafts.delete(id);
  }

  at(event) {
    const box = this.stage.getBoundingClientRect();
    return this.hooks.view().toGrid(event.clientX - box.left, event.clientY - box.top);
  }

  press(event) {
    if (this.moving || event.button !== 0 || !this.current) return; // the view's own gestures take it
    event.stopPropagation();
    this.stage.setPointerCapture(event.pointerId);
    this.fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (this.fingers.size === 2) return this.cancelStroke(); // two fingers move the view
    const here = this.at(event);
    if (this.tool !== "polygon") return this.begin(here);
    this.addCorner(here, event.altKey);
    this.placed = this.corners.at(-1); // until the finger is lifted a second one takes it back
  }

  move(event) {
    this.showCursor(event);
    if (this.fingers.size === 2 && this.fingers.has(event.pointerId)) return this.pinch(event);
    if (this.tool === "polygon" && this.corners.length) this.pointTo(this.at(event));
    if (!this.before) return;
    event.stopPropagation();
    const events = event.getCoalescedEvents?.() ?? [];
    for (const one of events.length ? events : [event]) this.stroke(this.last, this.at(one));
  }

  lift(event, cancelled = false) {
    this.fingers.delete(event.pointerId);
    this.placed = null;
    if (!this.before) return;
    event.stopPropagation();
    if (cancelled) return this.cancelStroke();
    this.finish();
  }

  begin(here) {
    this.before = this.current.mask.slice();
    this.stroke(here, here);
  }

  /** What was painted since `begin` is one step to undo. */
  finish() {
    this.current.commit(this.before);
    this.before = null;
    this.current.paint();
    this.hooks.finished();
  }

  stroke(from, to) {
    const { mask, width, height } = this.current;
    stampLine(mask, width, height, from, to, this.radius, this.tool === "brush" ? 1 : 0);
    this.last = to;
    this.current.paint();
    this.hooks.changed();
  }

  cancelStroke() {
    if (this.before) {
      this.current.mask.set(this.before);
      this.current.paint();
    }
    this.before = null;
    this.corners = this.corners.filter((corner) => corner !== this.placed);
    this.hooks.changed();
  }

  pinch(event) {
    event.stopPropagation();
    const middle = () => {
      const [a, b] = [...this.fingers.values()];
      return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, length: Math.hypot(a.x - b.x, a.y - b.y) };
    };
    const old = middle();
    this.fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    const now = middle();
    const box = this.stage.getBoundingClientRect();
    this.hooks.view().panBy(now.x - old.x, now.y - old.y);
    if (old.length > 0) this.hooks.view().zoomAt(now.length / old.length, now.x - box.left, now.y - box.top);
    this.hooks.changed();
  }

  addCorner(here, takeAway) {
    const [first] = this.corners;
    const near = first && Math.hypot(first.x - here.x, first.y - here.y) * this.hooks.view().scale < CLOSE_PX;
    if (near && this.corners.length >= 3) return this.closePolygon(takeAway);
    this.corners.push(here);
    this.pointer = here;
    this.hooks.changed();
  }

  /** The last corner's line ends here until it is set. */
  pointTo(here) {
    this.pointer = here;
    this.hooks.changed();
  }

  closePolygon(takeAway = false) {
    const { corners } = this;
    this.corners = [];
    if (corners.length >= 3) {
      const { width, height } = this.current;
      this.current.change((mask) => fillPolygon(mask, width, height, corners, takeAway ? 0 : 1));
    }
    this.hooks.finished();
  }

  choose(tool) {
    this.hand.lift();
    this.tool = tool;
    this.corners = [];
    this.hooks.changed();
  }

  showCursor(event) {
    const round = this.tool !== "polygon" && event.pointerType !== "touch" && !this.moving;
    this.cursor.hidden = !round;
    if (!round) return;
    const box = this.stage.getBoundingClientRect();
    const side = 2 * this.radius * this.hooks.view().scale;
    Object.assign(this.cursor.style, { width: `${side}px`, height: `${side}px` });
    this.cursor.style.transform = `translate(${event.clientX - box.left - side / 2}px, ${event.clientY - box.top - side / 2}px)`;
  }

  hideCursor() {
    this.cursor.hidden = true;
  }

  draw(context, view, { fill }) {
    const { current } = this;
    if (fill) drawPixels(context, current.layer.canvas, view);
    if (!this.before) drawMask(context, current.outline(), view, EDITED_COLOUR, { fill: false });
    if (!this.corners.length) return;
    context.lineWidth = 2 / view.scale;
    context.strokeStyle = "#fff";
    context.beginPath();
    [...this.corners, this.pointer].forEach(({ x, y }, place) => (place ? context.lineTo(x, y) : context.moveTo(x, y)));
    context.stroke();
    context.fillStyle = EDITED_COLOUR;
    for (const { x, y } of this.corners) {
      context.beginPath();
      context.arc(x, y, 4 / view.scale, 0, 2 * Math.PI);
      context.fill();
    }
  }
}
