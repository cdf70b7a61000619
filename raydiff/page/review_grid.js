// A list of any length as a grid of tiles, of which those in sight alone are in the page.
//
// Browsers scroll through some ten million pixels and no more, and a million tiles are longer than that. So the strip
// that is scrolled is of bounded length, and the tiles lie over it: a short way scrolls as far as the finger or wheel
// moves, a long way (the scrollbar is dragged) goes to the same share of the list.

const LONGEST = 4_000_000; // of the strip, pixels
const SPARE = 1; // rows of tiles above and below those in sight
const NARROWEST = 176; // of a tile, pixels
const SETTLED = 150; // milliseconds without scrolling

export class Grid {
  /** `draw(button, index)` fills a tile, `gone(button)` is told when it leaves, `open(index)` when it is chosen. */
  constructor(scroller, { draw, gone, open }) {
    this.scroller = scroller;
    this.strip = scroller.querySelector(".length");
    this.list = scroller.querySelector(".tiles");
    this.draw = draw;
    this.gone = gone;
    this.total = 0;
    this.current = 0;
    this.top = 0; // rows of tiles that are scrolled past
    this.tiles = new Map(); // by index
    scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    scroller.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    this.list.addEventListener("keydown", (event) => this.#key(event));
    this.list.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      this.#choose(Number(button.dataset.index));
      open(this.current);
    });
    new ResizeObserver(() => this.#measure()).observe(scroller);
  }

  /** Show a list of so many, from its beginning. */
  reset(total) {
    for (const tile of this.tiles.values()) this.#drop(tile);
    this.tiles.clear();
    this.total = total;
    this.current = 0;
    this.top = 0;
    this.#measure();
    this.#follow();
  }

  /** Fill the tiles anew, as what is known of them may have changed. */
  refresh() {
    for (const [index, tile] of this.tiles) this.draw(tile.firstChild, index);
  }

  /** Bring a tile into sight and give it the focus. */
  focus(index) {
    this.#choose(Math.max(0, Math.min(this.total - 1, index)));
    const row = Math.floor(this.current / this.columns);
    if (row < this.top) this.top = row;
    if (row + 1 > this.top + this.rowsInSight) this.top = row + 1 - this.rowsInSight;
    this.#render();
    this.#follow();
    this.tiles.get(this.current)?.firstChild.focus({ preventScroll: true });
  }

  /** The indices in sight, first and last. */
  get sight() {
    const first = Math.floor(this.top) * this.columns;
    return [first, Math.min(this.total, Math.ceil(this.top + this.rowsInSight) * this.columns) - 1];
  }

  get #lastTop() {
    return Math.max(0, Math.ceil(this.total / this.columns) - this.rowsInSight);
  }

  get #way() {
    return this.scroller.scrollHeight - this.scroller.clientHeight;
  }

  #measure() {
    const first = Math.floor(this.top) * (this.columns ?? 1);
    const style = getComputedStyle(this.scroller);
    const width = this.scroller.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    this.columns = Math.max(1, Math.floor(width / NARROWEST));
    this.width = width / this.columns;
    this.height = Math.round(this.width * 0.74) + 84;
    this.inSight = this.scroller.clientHeight;
    this.rowsInSight = this.inSight / this.height;
    const full = Math.ceil(this.total / this.columns) * this.height;
    this.exact = full <= LONGEST;
    this.strip.style.height = `${Math.min(full, LONGEST)}px`;
    this.list.style.height = `${this.inSight}px`;
    this.top = Math.min(Math.floor(first / this.columns), this.#lastTop);
    this.#render();
    this.#follow();
  }

  /** Have the scrollbar show where the list is. */
  #follow() {
    const share = this.#lastTop ? this.top / this.#lastTop : 0;
    this.scroller.scrollTop = this.exact ? this.top * this.height : share * this.#way;
    this.seen = this.scroller.scrollTop;
  }

  #scrolled() {
    const now = this.scroller.scrollTop;
    const moved = now - this.seen;
    if (moved === 0) return;
    this.seen = now;
    const short = Math.abs(moved) < 2 * this.inSight && now > 0 && now < this.#way - 1;
    if (this.exact) this.top = now / this.height;
    else if (short) this.top += moved / this.height;
    else this.top = (now / this.#way) * this.#lastTop;
    this.#moved();
  }

  #wheel(event) {
    if (this.exact || event.ctrlKey || !event.deltaY) return;
    event.preventDefault();
    this.top += (event.deltaY * [1, 40, this.inSight][event.deltaMode]) / this.height;
    this.#moved();
  }

  #moved() {
    this.top = Math.max(0, Math.min(this.#lastTop, this.top));
    this.#render();
    clearTimeout(this.settling);
    this.settling = setTimeout(() => this.exact || this.#follow(), SETTLED);
  }

  #render() {
    const first = Math.max(0, Math.floor(this.top) - SPARE) * this.columns;
    const last = Math.min(this.total, (Math.ceil(this.top + this.rowsInSight) + SPARE) * this.columns);
    for (const [index, tile] of this.tiles) {
      if (index >= first && index < last) continue;
      if (tile.contains(document.activeElement)) continue; // or the focus would be lost
      this.#drop(tile);
      this.tiles.delete(index);
    }
    let after = null; // from the last to the first, so that each knows what comes behind it
    for (let index = last - 1; index >= first; index -= 1) {
      let tile = this.tiles.get(index);
      if (!tile) {
        tile = this.#make(index);
        this.tiles.set(index, tile);
        this.list.insertBefore(tile, after);
      }
      after = tile;
    }
    const [from, to] = this.sight;
    const reached = this.current >= from && this.current <= to ? this.current : from;
    for (const [index, tile] of this.tiles) {
      const x = (index % this.columns) * this.width;
      const y = (Math.floor(index / this.columns) - this.top) * this.height;
      tile.style.transform = `translate(${x}px, ${y}px)`;
      tile.style.width = `${this.width}px`;
      tile.style.height = `${this.height}px`;
      tile.firstChild.tabIndex = index === reached ? 0 : -1;
    }
  }

  #make(index) {
    const tile = document.createElement("li");
    tile.setAttribute("aria-setsize", this.total);
    tile.setAttribute("aria-posinset", index + 1);
    const button = Object.assign(document.createElement("button"), { type: "button", className: "tile" });
    button.dataset.index = index;
    if (index === this.current) button.setAttribute("aria-current", "true");
    tile.append(button);
    this.draw(button, index);
    return tile;
  }

  #drop(tile) {
    this.gone(tile.firstChild);
    tile.remove();
  }

  #choose(index) {
    this.tiles.get(this.current)?.firstChild.removeAttribute("aria-current");
    this.current = index;
    this.tiles.get(index)?.firstChild.setAttribute("aria-current", "true");
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(this.rowsInSight)) * this.columns;
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: this.columns, ArrowUp: -this.columns, PageDown: page, PageUp: -page };
    const ends = { Home: 0, End: this.total - 1 };
    const from = Number(event.target.closest("button")?.dataset.index ?? this.current);
    const index = event.key in ends ? ends[event.key] : from + (steps[event.key] ?? NaN);
    if (Number.isNaN(index)) return;
    event.preventDefault();
    if (index >= 0 && index < this.total) this.focus(index);
    else if (event.key.startsWith("Page")) this.focus(index < 0 ? 0 : this.total - 1);
  }
}
