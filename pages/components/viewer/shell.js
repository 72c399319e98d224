/*
 * What the viewer and the comparison have around their panes: place among the scans, help, full screen, keys, and how
 * Streamlit mounts them. A component extends Shell and says what its buttons and letters do.
 */

const NARROW_PX = 640; // below it the panes stack and the controls fold
const PAN_STEP_PX = 60;
const KEYBOARD_PAUSE_MS = 400; // a slider moved by keys reports once the keys rest
const ARROWS = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }; // the way the scan moves
const ANYWHERE = "busi-keys-anywhere"; // in this browser: "no" once a reader has switched it off
const LETTERS = { f: "full", h: "hide", "?": "help", 0: "zoom-reset", "+": "zoom-in", "=": "zoom-in", "-": "zoom-out", _: "zoom-out" };

const shells = new Map(); // by the element Streamlit gives
let active = null; // the one that keys go to, when a page shows several

class Shell {
  constructor(root) {
    this.root = root;
    this.ending = new AbortController();
    active ??= this;
  }

  part(name) {
    return this.root.querySelector(`[data-part="${name}"]`);
  }

  button(action) {
    return this.root.querySelector(`[data-action="${action}"]`);
  }

  /** Write what is read out when it changes (aria-live): the same words again are not said again. */
  put(name, text) {
    const part = this.part(name);
    if (part.textContent !== text) part.textContent = text;
  }

  /** Listen until the component goes; `onKey` gets what is not typed into a field. */
  listenToShell({ redraw }) {
    const { signal } = this.ending;
    const on = (target, name, listener) => target.addEventListener(name, listener, { signal });
    on(this.root, "keydown", () => (this.byKeyboard = true));
    on(this.root, "pointerdown", () => {
      this.byKeyboard = false;
      active = this;
    });
    on(this.root, "pointerenter", () => (active = this));
    on(this.root, "pointerup", (event) => this.giveKeysBack(event.target));
    on(document, "keydown", (event) => {
      const mine = active === this && !event.defaultPrevented && (this.hasFocus(event) || !isSingleSign(event) || actsAnywhere());
      if (mine && !isTyping(event.composedPath()[0])) this.onKey(event);
    });
    on(this.part("anywhere"), "change", ({ target }) => keepAnywhere(target.checked));
    on(document, "fullscreenchange", redraw);
    return on;
  }

  hasFocus(event) {
    return event.composedPath().includes(this.root);
  }

  /** Name, size and place of the scan that is shown. */
  writePlace({ name, width, height, position, count, simulated }) {
    const { from, to } = this.way ?? {};
    if (position === to || (position - from) * (position - to) > 0) this.way = null; // arrived, or led elsewhere
    this.part("failed").hidden = true;
    this.put("name", (this.part("name").title = name));
    this.put("size", `${width} × ${height} px`);
    this.put("position", `${position} of ${count}`);
    for (const button of this.part("steps").querySelectorAll("button")) button.hidden = count === 1;
    this.button("previous").disabled = position <= 1;
    this.button("next").disabled = position >= count;
    this.part("simulated").hidden = !simulated;
  }

  /** An empty pane would look like an empty scan. */
  writeFailure(error) {
    console.error(`${this.root.dataset.testid}:`, error);
    this.part("failed").hidden = false;
  }

  /** Ask for the scan before or after the one on its way, so that quick presses add up; none on its way: the one shown. */
  stepFrom({ position, count }, by) {
    const to = Math.min(Math.max((this.way?.to ?? position) + by, 1), count);
    if (to === position && !this.way) return;
    this.way = { from: this.way?.from ?? position, to };
    this.ports.setTriggerValue("step", { to });
  }

  /** After a mouse let go of a slider or button, the arrow keys step through scans again. */
  giveKeysBack(target) {
    if (target.closest("input, button, label, summary")) setTimeout(() => this.root.focus({ preventScroll: true }));
  }

  /** The list takes the focus, and gives it back: else who reads by ear would have to look for it. */
  toggleHelp(open = this.part("help").hidden) {
    const help = this.part("help");
    const held = help.matches(":focus");
    help.hidden = !open;
    this.part("anywhere").checked = actsAnywhere();
    this.button("help").setAttribute("aria-expanded", open);
    if (open) help.focus({ preventScroll: true });
    else if (held) this.button("help").focus({ preventScroll: true });
  }

  /** What the page asks next would stand behind a component that fills the screen. */
  async leaveFullScreen() {
    this.root.removeAttribute("data-filling");
    if (document.fullscreenElement) await document.exitFullscreen();
  }

  /** Where a browser cannot show an element full screen (iPhone), fill the window instead. */
  async toggleFullScreen() {
    if (document.fullscreenElement) await document.exitFullscreen();
    else if (this.root.requestFullscreen) await this.root.requestFullscreen().catch(() => {});
    else this.root.toggleAttribute("data-filling");
  }

  /** An arrow steps through scans, with Shift it moves the zoomed scan. */
  onArrow(event, [x, y]) {
    if (usesArrows(event.composedPath()[0])) return;
    if (event.shiftKey) this.panBy(x * PAN_STEP_PX, y * PAN_STEP_PX);
    else if (x && !event.repeat && this.header.count > 1) this.stepFrom(this.header, -x);
    else return;
    event.preventDefault();
  }

  end() {
    this.ending.abort();
    this.sizes.disconnect();
    clearTimeout(this.reporting);
    cancelAnimationFrame(this.frame);
    if (active === this) active = null;
  }
}

/** A letter, digit or sign alone: who dictates says them by the way (WCAG 2.2, 2.1.4), so they can be switched off. */
function isSingleSign(event) {
  return event.key.length === 1 && event.key !== " " && !event.ctrlKey && !event.metaKey && !event.altKey;
}

/** Whether they act wherever the focus is, or in the component alone. */
function actsAnywhere() {
  try {
    return localStorage.getItem(ANYWHERE) !== "no";
  } catch {
    return true; // a browser that keeps nothing
  }
}

function keepAnywhere(wanted) {
  try {
    localStorage.setItem(ANYWHERE, wanted ? "yes" : "no");
  } catch (error) {
    console.warn("not kept:", error);
  }
}

/** What a component's default export does: one object for as long as its place on the page lives, fresh data each run. */
function mountAs(create, { data, parentElement, setStateValue, setTriggerValue }) {
  if (!shells.has(parentElement)) shells.set(parentElement, create(parentElement));
  const shell = shells.get(parentElement);
  if (data) shell.show(data, { setStateValue, setTriggerValue }).catch((error) => shell.writeFailure(error));
  return () => {
    shells.get(parentElement)?.end();
    shells.delete(parentElement);
  };
}
