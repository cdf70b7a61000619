// Several tiles at once: chosen with Shift or Ctrl, so that one verdict can be given of all of them.

const $ = (id) => document.getElementById(id);
const MOST = 500; // that the service takes at once

export class Choice {
  #chosen = new Set(); // indices
  #anchor = null; // where a range begins

  /** `judge(indices, verdict)` is asked for a verdict of what is chosen, and tells whether it was kept. */
  constructor(grid, judge) {
    this.grid = grid;
    this.judge = judge;
    this.allowed = false;
    const click = (event) => this.#click(event);
    grid.list.addEventListener("click", click, { capture: true }); // before the grid opens the tile
    grid.scroller.addEventListener("keydown", (event) => this.#before(event), { capture: true });
    grid.scroller.addEventListener("keydown", (event) => this.#after(event));
    for (const button of $("chosen").querySelectorAll("[data-verdict]")) {
      button.addEventListener("click", () => this.give(button.dataset.verdict));
    }
    $("forget").addEventListener("click", () => {
      this.clear();
      grid.focus(grid.current);
    });
  }

  get size() {
    return this.#chosen.size;
  }

  clear() {
    this.#anchor = null;
    this.#set([]);
  }

  /** Have a tile show whether it is chosen. */
  mark(button, index) {
    if (this.#chosen.has(index)) button.setAttribute("aria-pressed", "true");
    else button.removeAttribute("aria-pressed");
  }

  /** Give a verdict of all that are chosen. */
  async give(verdict) {
    if (!(await this.judge([...this.#chosen].sort((a, b) => a - b), verdict))) return;
    this.clear();
    this.grid.focus(this.grid.current);
  }

  #click(event) {
    const button = event.target.closest(".tile");
    if (!this.allowed || !button || !(event.shiftKey || event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    event.stopPropagation();
    const index = Number(button.dataset.index);
    if (event.shiftKey) {
      this.#anchor ??= this.grid.current;
      this.grid.focus(index);
      this.#range();
      return;
    }
    const chosen = new Set(this.#chosen);
    if (!chosen.delete(index)) chosen.add(index);
    this.#anchor = index;
    this.grid.focus(index);
    this.#set(chosen);
  }

  #before(event) {
    if (!this.allowed) return;
    if (event.shiftKey && event.key.startsWith("Arrow")) this.#anchor ??= this.grid.current;
    else if (event.key === "Escape" && this.size) this.clear();
  }

  /** The grid has gone where the arrow led. */
  #after(event) {
    if (!this.allowed || !event.key.startsWith("Arrow")) return;
    if (event.shiftKey) this.#range();
    else this.#anchor = null;
  }

  #range() {
    const [from, to] = [this.#anchor, this.grid.current].sort((a, b) => a - b);
    this.#set(Array.from({ length: to - from + 1 }, (_, place) => from + place));
  }

  #set(indices) {
    this.#chosen = new Set([...indices].slice(0, MOST));
    $("chosen").hidden = !this.size;
    $("how-many").textContent = `${this.size.toLocaleString("en")} chosen`;
    this.grid.refresh();
  }
}
