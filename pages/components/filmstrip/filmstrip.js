/** Thumbnails of the session's scans; names are text, never markup. */
const ends = new WeakMap(); // what ends the last drawing of a strip

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const strip = parentElement.querySelector(".strip");
  const bytes = data instanceof Uint8Array ? data : new Uint8Array(data);
  const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));

  ends.get(strip)?.();
  const made = [];
  let offset = 4 + length;
  const tiles = header.tiles.map((tile, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("role", "option");
    button.setAttribute("aria-selected", String(index === header.current));
    button.title = `${index + 1} of ${header.tiles.length}: ${tile.name}`;
    button.setAttribute("aria-label", button.title);
    if (tile.length) {
      const image = document.createElement("img");
      image.src = URL.createObjectURL(new Blob([bytes.slice(offset, offset + tile.length)], { type: "image/jpeg" }));
      image.alt = "";
      made.push(image.src);
      button.append(image);
    } else {
      button.append(Object.assign(document.createElement("span"), { textContent: "not readable" }));
      button.classList.add("bad");
    }
    offset += tile.length;
    button.append(Object.assign(document.createElement("small"), { textContent: String(index + 1) }));
    button.addEventListener("click", () => setTriggerValue("picked", index));
    return button;
  });
  const onKey = (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const index = header.current + by;
    const isTyping = event.composedPath()[0].matches?.("input, textarea, select, [contenteditable]");
    if (header.keys && by && !isTyping && index >= 0 && index < tiles.length) setTriggerValue("picked", index);
  };
  addEventListener("keydown", onKey);
  const held = strip.getRootNode().activeElement;
  const hadFocus = held !== strip && strip.contains(held);
  strip.replaceChildren(...tiles);
  const current = tiles[header.current];
  if (hadFocus) current?.focus({ preventScroll: true });
  if (current) strip.scrollLeft = current.offsetLeft - (strip.clientWidth - current.clientWidth) / 2;
  const end = () => {
    removeEventListener("keydown", onKey);
    for (const url of made) URL.revokeObjectURL(url);
  };
  ends.set(strip, end);
  return end;
}
