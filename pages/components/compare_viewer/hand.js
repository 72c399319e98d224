/*
 * The brush for those who use no pointer: Tab reaches it, arrows move it, Space puts it down and lifts it again. With
 * the polygon, Space sets a corner and Enter closes.
 */

class Hand {
  constructor(editor, mark, signal) {
    Object.assign(this, { editor, mark, at: null, down: false });
    const on = (name, listener) => mark.addEventListener(name, listener, { signal });
    on("focus", () => this.show());
    on("blur", () => this.lift());
    on("keydown", (event) => this.onKey(event));
  }

  /** Arrows by half a brush, with Alt by one pixel; with Shift they are the view's. */
  onKey(event) {
    const { current } = this.editor;
    if (!current || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const arrow = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (arrow) this.move(arrow, event.altKey ? 1 : Math.max(1, Math.round(this.editor.radius / 2)));
    else if (event.key === " ") event.repeat || this.press();
    else return;
    event.preventDefault();
  }

  move([x, y], by) {
    const { width, height } = this.editor.current;
    const from = this.at;
    const inside = (value, length) => Math.min(length - 0.5, Math.max(0.5, value));
    this.at = { x: inside(from.x + x * by, width), y: inside(from.y + y * by, height) };
    if (this.down) this.editor.stroke(from, this.at);
    else if (this.editor.corners.length) this.editor.pointTo(this.at);
    this.show();
  }

  press() {
    if (this.editor.tool === "polygon") this.editor.addCorner(this.at, false);
    else if (this.down) this.lift();
    else {
      this.down = true;
      this.editor.begin(this.at);
    }
    this.show();
  }

  lift() {
    if (!this.down) return;
    this.down = false;
    this.editor.finish();
    this.show();
  }

  /** Another scan, or another draft: begin in its middle. */
  forget() {
    Object.assign(this, { at: null, down: false });
  }

  show() {
    const { current, tool, radius } = this.editor;
    if (!current) return;
    const { width, height } = current;
    this.at ??= { x: Math.floor(width / 2) + 0.5, y: Math.floor(height / 2) + 0.5 };
    const { scale, origin } = this.editor.hooks.view();
    const side = tool === "polygon" ? 10 : Math.max(6, 2 * radius * scale);
    const [left, top] = [origin.x + this.at.x * scale - side / 2, origin.y + this.at.y * scale - side / 2];
    Object.assign(this.mark.style, { width: `${side}px`, height: `${side}px`, transform: `translate(${left}px, ${top}px)` });
    this.mark.toggleAttribute("data-down", this.down);
    const doing = tool === "polygon" ? "Space sets a corner" : this.down ? "down, Space lifts it" : "lifted, Space puts it down";
    this.mark.setAttribute("aria-label", `${tool} at column ${Math.floor(this.at.x)} of ${width}, row ${Math.floor(this.at.y)} of ${height}: ${doing}`);
  }
}
