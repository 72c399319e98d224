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
    button.setAttribute("aria-label", tile.length ? button.title : `${button.title}, not readable`);
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
    button.addEventListener("click", () => pick(index));
    return button;
  });
  let place = header.current; // the strip's one Tab stop, and where the next arrow starts: keys may outrun the page
  const stopAt = (index) => {
    place = index;
    tiles.forEach((tile, other) => (tile.tabIndex = other === index ? 0 : -1));
    strip.scrollLeft = tiles[index].offsetLeft - (strip.clientWidth - tiles[index].clientWidth) / 2;
  };
  const pick = (index) => {
    stopAt(index);
    setTriggerValue("picked", index);
  };
  const onKey = (event) => {
    const target = event.composedPath()[0];
    const inStrip = tiles.includes(target);
    const isTyping = target.matches?.("input, textarea, select, [contenteditable]");
    if (event.repeat || event.altKey || event.ctrlKey || event.metaKey || (!inStrip && (!header.keys || isTyping))) return;
    const places = { ArrowLeft: place - 1, ArrowRight: place + 1, ...(inStrip && { Home: 0, End: tiles.length - 1 }) };
    const to = places[event.key];
    if (!(to in tiles) || to === place) return;
    event.preventDefault();
    pick(to);
    if (inStrip) tiles[to].focus({ preventScroll: true });
  };
  addEventListener("keydown", onKey);
  const held = [...strip.children].indexOf(strip.getRootNode().activeElement);
  strip.replaceChildren(...tiles);
  stopAt(tiles[held] ? held : header.current);
  if (tiles[held]) tiles[held].focus({ preventScroll: true });
  const end = () => {
    removeEventListener("keydown", onKey);
    for (const url of made) URL.revokeObjectURL(url);
  };
  ends.set(strip, end);
  return end;
}
