// The image with its heat map: zoom and pan by mouse, touch and keys.

const STEP = 1.25; // of a zoom by key or button
const MOST = 32; // screen pixels an image pixel
const NUDGE = 60; // screen pixels of a move by key

export class Viewer {
  constructor(stage) {
    this.stage = stage;
    this.plane = stage.querySelector("#plane");
    this.image = stage.querySelector("#image");
    this.heat = stage.querySelector("#heat");
    this.made = stage.querySelector("#made");
    this.zoomed = () => {};
    this.width = this.height = 0;
    this.scale = 1;
    this.x = this.y = 0;
    this.fitted = true;
    this.pointers = new Map();
    stage.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    stage.addEventListener("pointerdown", (event) => this.#down(event));
    stage.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, (event) => this.#up(event));
    stage.addEventListener("dblclick", (event) => this.#twice(event));
    stage.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => (this.fitted ? this.fit() : this.#show())).observe(stage);
  }

  /** Show an image of so many pixels; null shows none. */
  show(url, width, height, alt) {
    const same = width === this.width && height === this.height; // a series of images is compared at one place
    this.plane.hidden = !url;
    this.heat.hidden = true;
    if (!url) return;
    [this.width, this.height] = [width, height];
    this.image.src = url;
    this.image.alt = alt;
    this.plane.style.width = `${width}px`;
    this.plane.style.height = `${height}px`;
    if (same && !this.fitted) this.#show();
    else this.fit();
  }

  /** Lay a heat map over a part of the image: x, y, width, height in its pixels. */
  warm(url, box) {
    lay(this.heat, url, box);
  }

  /** Lay what the method takes the image for over the same part, below the heat map. */
  replace(url, box) {
    lay(this.made, url, box);
  }

  opacity(share) {
    this.heat.style.opacity = share;
  }

  fit() {
    this.scale = this.#fitting();
    this.x = (this.stage.clientWidth - this.width * this.scale) / 2;
    this.y = (this.stage.clientHeight - this.height * this.scale) / 2;
    this.fitted = true;
    this.#show();
  }

  /** Zoom, keeping what is at a place of the stage (by default its middle) where it is. */
  zoom(factor, x = this.stage.clientWidth / 2, y = this.stage.clientHeight / 2) {
    const least = Math.min(this.#fitting(), 1);
    const scale = Math.min(MOST, Math.max(least, this.scale * factor));
    this.x = x - ((x - this.x) * scale) / this.scale;
    this.y = y - ((y - this.y) * scale) / this.scale;
    this.scale = scale;
    this.fitted = scale <= least && least === this.#fitting();
    if (this.fitted) this.fit();
    else this.#show();
  }

  pan(x, y) {
    if (this.fitted) return;
    this.x += x;
    this.y += y;
    this.#show();
  }

  #fitting() {
    if (!this.width) return 1;
    return Math.min(this.stage.clientWidth / this.width, this.stage.clientHeight / this.height, MOST / 4);
  }

  #show() {
    const { clientWidth: width, clientHeight: height } = this.stage;
    this.x = kept(this.x, this.width * this.scale, width);
    this.y = kept(this.y, this.height * this.scale, height);
    this.plane.style.setProperty("--scale", this.scale);
    this.plane.style.transform = `translate(${this.x}px, ${this.y}px) scale(${this.scale})`;
    this.image.classList.toggle("pixels", this.scale >= 3);
    // A finger scrolls the page over an image that is whole, and moves one that is zoomed.
    this.stage.style.touchAction = this.fitted ? "pan-y" : "none";
    this.stage.classList.toggle("movable", !this.fitted);
    this.zoomed(this.scale);
  }

  #place(event) {
    const box = this.stage.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  #wheel(event) {
    if (this.plane.hidden) return;
    event.preventDefault();
    this.zoom(Math.exp(-Math.sign(event.deltaY) * Math.min(Math.abs(event.deltaY), 120) * 0.002), ...this.#place(event));
  }

  #down(event) {
    this.stage.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.#place(event));
  }

  #move(event) {
    if (!this.pointers.has(event.pointerId)) return;
    const before = [...this.pointers.values()];
    this.pointers.set(event.pointerId, this.#place(event));
    const after = [...this.pointers.values()];
    if (after.length === 1) this.pan(after[0][0] - before[0][0], after[0][1] - before[0][1]);
    if (after.length !== 2) return;
    const [x, y] = middle(after);
    const [fromX, fromY] = middle(before);
    this.zoom(apart(after) / Math.max(1, apart(before)), x, y);
    this.pan(x - fromX, y - fromY);
  }

  #up(event) {
    this.pointers.delete(event.pointerId);
  }

  #twice(event) {
    if (this.fitted) this.zoom(Math.max(2, 1 / this.scale), ...this.#place(event));
    else this.fit();
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const moves = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    if (event.key in moves) this.pan(...moves[event.key].map((side) => side * NUDGE));
    else if (event.key === "+" || event.key === "=") this.zoom(STEP);
    else if (event.key === "-") this.zoom(1 / STEP);
    else if (event.key === "0") this.fit();
    else return;
    event.preventDefault();
  }
}

function lay(layer, url, [x, y, width, height]) {
  layer.hidden = !url;
  if (!url) return;
  layer.src = url;
  const places = { left: x, top: y, width, height };
  for (const [side, value] of Object.entries(places)) layer.style[side] = `${value}px`;
}

/** A side's place, so that an image that is larger than the stage fills it, and a smaller one lies in its middle. */
function kept(place, size, room) {
  return size <= room ? (room - size) / 2 : Math.min(0, Math.max(room - size, place));
}

function middle([a, b]) {
  return [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
}

function apart([a, b]) {
  return Math.hypot(a[0] - b[0], a[1] - b[1]);
}
