// The place in an image that a verdict means: drawn over it by dragging, once a button asks for that.

const LEAST = 1; // pixels of a side

export class Region {
  #from = null; // where the pointer went down, while it draws

  constructor(viewer, button) {
    this.viewer = viewer;
    this.button = button;
    this.stage = viewer.stage;
    this.box = null; // x0, y0, x1, y1 in pixels of the image
    this.drawn = viewer.plane.querySelector(".drawn");
    this.counting = viewer.plane.querySelector(".counting");
    button.addEventListener("click", () => (this.box ? this.clear() : this.#ask(!this.asked)));
    // Before the viewer hears of them, to which dragging means moving.
    const capture = { capture: true };
    this.stage.addEventListener("pointerdown", (event) => this.#down(event), capture);
    this.stage.addEventListener("pointermove", (event) => this.#move(event), capture);
    this.stage.addEventListener("pointerup", (event) => this.#up(event), capture);
    this.stage.addEventListener("pointercancel", (event) => this.#up(event), capture);
    this.clear();
  }

  /** Forget what was drawn. */
  clear() {
    this.box = this.#from = null;
    this.#ask(false);
  }

  /** Show the place of the verdict that counts, if it has one. */
  show(region) {
    lay(this.counting, region);
  }

  #ask(asked) {
    this.asked = asked;
    this.stage.classList.toggle("drawing", asked);
    this.button.textContent = this.box ? "Forget the place" : asked ? "Drag over the place" : "Mark a place";
    this.button.setAttribute("aria-pressed", asked);
    lay(this.drawn, this.box);
  }

  #down(event) {
    if (!this.asked || this.viewer.plane.hidden || this.#from) return;
    event.stopPropagation();
    this.stage.setPointerCapture(event.pointerId);
    this.#from = this.#place(event);
  }

  #move(event) {
    if (!this.#from) return;
    event.stopPropagation();
    const [[x, y], [otherX, otherY]] = [this.#from, this.#place(event)];
    this.box = [
      Math.floor(Math.min(x, otherX)),
      Math.floor(Math.min(y, otherY)),
      Math.ceil(Math.max(x, otherX)),
      Math.ceil(Math.max(y, otherY)),
    ];
    lay(this.drawn, this.box);
  }

  #up(event) {
    if (!this.#from) return;
    event.stopPropagation();
    this.#from = null;
    const [x0, y0, x1, y1] = this.box ?? [0, 0, 0, 0];
    if (event.type === "pointercancel" || x1 - x0 < LEAST || y1 - y0 < LEAST) this.box = null;
    this.#ask(!this.box);
  }

  /** Where the pointer is in the image, as far as it is in it. */
  #place(event) {
    const { left, top } = this.stage.getBoundingClientRect();
    const { x, y, scale, width, height } = this.viewer;
    const inside = (value, most) => Math.min(most, Math.max(0, value));
    return [inside((event.clientX - left - x) / scale, width), inside((event.clientY - top - y) / scale, height)];
  }
}

function lay(layer, region) {
  layer.hidden = !region;
  if (!region) return;
  const [x0, y0, x1, y1] = region;
  const places = { left: x0, top: y0, width: x1 - x0, height: y1 - y0 };
  for (const [side, value] of Object.entries(places)) layer.style[side] = `${value}px`;
}
