// The small pictures of rows: asked for a few at a time, those in sight first, and the last few hundred kept.

import { call } from "./api.js";

const AT_ONCE = 4;
const KEPT = 400;

export class Pictures {
  #kept = new Map(); // by row, the latest last
  #waiting = new Map(); // by row: what is called with its picture
  #running = 0;

  /** What is known of a row's picture; null while it is not there. */
  get(row) {
    const found = this.#kept.get(row);
    if (found === undefined) return null;
    this.#kept.delete(row);
    this.#kept.set(row, found);
    return found;
  }

  /** Have `done` called with a row's picture, unless it is forgotten before its turn. */
  ask(row, done) {
    this.#waiting.set(row, done);
    queueMicrotask(() => this.#work()); // when all that came into sight with it have asked, too
  }

  forget(row) {
    this.#waiting.delete(row);
  }

  async #work() {
    while (this.#running < AT_ONCE && this.#waiting.size) {
      const [row, done] = this.#waiting.entries().next().value;
      this.#waiting.delete(row);
      this.#running += 1;
      call(`v1/rows/${row}/picture`)
        .catch((error) => ({ image: null, error: error.message }))
        .then((found) => {
          this.#running -= 1;
          this.#kept.set(row, found);
          while (this.#kept.size > KEPT) this.#kept.delete(this.#kept.keys().next().value);
          done(found);
          this.#work();
        });
    }
  }
}
