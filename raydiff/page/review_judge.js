// An inspector's verdicts: how they are sent and shown, and the part of the large view in which they are given.

import { call } from "./api.js";
import { Region } from "./review_region.js";
import { fileOf, markOf, when } from "./review_words.js";

const $ = (id) => document.getElementById(id);
const VERDICTS = { n: "normal", d: "defect", u: "unsure" }; // by key

/** The verdict that a key means; undefined where it means none. */
export function meant(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return undefined;
  return VERDICTS[event.key.toLowerCase()];
}

/** Sends verdicts, one at a time. */
export class Giver {
  #busy = false;

  /** `changed()` is told when verdicts of rows have changed. */
  constructor(changed) {
    this.who = null; // nobody, until it is known
    this.changed = changed;
  }

  /** Give a verdict of rows of the list, or of those that a promise brings; whether it was kept. */
  async judge(rows, verdict, more) {
    if (!this.who || this.#busy) return false;
    this.#busy = true;
    try {
      const told = await rows;
      if (told.includes(null)) throw new Error("not all of these images could be fetched");
      const counts = await send(told.map(({ row }) => row), verdict, more);
      for (const each of told) each.judged = counts.get(each.row);
      this.changed();
      const other = told.find(({ judged }) => judged.verdict !== verdict || judged.who !== this.who);
      const which = told.length === 1 ? fileOf(told[0].uri) : `${told.length} images`;
      const but = other ? ` ${other.judged.who}'s verdict of ${fileOf(other.uri)} has a later time and counts.` : "";
      say(`${which}: ${verdict}.${but}`);
      return true;
    } catch (error) {
      say(`The verdict is not kept: ${error.message}`);
      return false;
    } finally {
      this.#busy = false;
    }
  }
}

/** Give a verdict of rows; of each the verdict that counts now, by its number. */
async function send(rows, verdict, { note, region } = {}) {
  const said = rows.length === 1 ? { row: rows[0], region: region ?? null } : { rows };
  const found = await call("v1/verdicts", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...said, verdict, note: note || null }),
  });
  return new Map(found.rows.map(({ row, judged }) => [row, judged]));
}

/** Tell what came of a verdict, where it was given. */
function say(sentence) {
  $($("row").open ? "kept" : "kept-here").textContent = sentence;
}

export class Judge {
  /** `give(verdict, {note, region})` is called with what is said of the row that is shown. */
  constructor(viewer, give) {
    this.who = null; // nobody, until it is known
    this.give = give;
    this.region = new Region(viewer, $("mark"));
    for (const button of $("judge").querySelectorAll("[data-verdict]")) {
      button.addEventListener("click", () => this.#give(button.dataset.verdict));
    }
    $("note").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== "Escape") return;
      event.preventDefault(); // not to leave the image by it
      event.stopPropagation();
      $("judge").querySelector("[data-verdict]").focus(); // from where letters are keys again
    });
    $("row").addEventListener("keydown", (event) => {
      const at = event.target;
      if (!this.who || at.closest("input") || !(at === $("row") || at.closest("#stage, #judge, .row-bar"))) return;
      const verdict = meant(event);
      if (verdict) this.#give(verdict);
    });
  }

  /** Let somebody give verdicts. */
  allow(who) {
    this.who = who;
    $("judge").hidden = !who;
    $("judge-title").textContent = `Your verdict, as ${who ?? "nobody"}`;
  }

  /** Another row is shown: what was begun is not of it. */
  clear() {
    $("note").value = "";
    this.region.clear();
  }

  /** Show the verdict that counts. */
  show(judged) {
    this.region.show(judged?.region);
    const by = judged ? `by ${judged.who}, ${when(judged)}${judged.note ? `: ${judged.note}` : ""}` : "";
    const words = (text) => Object.assign(document.createElement("span"), { textContent: text });
    $("judged").replaceChildren(...(judged ? [words("Judged"), markOf(judged), words(by)] : [words("Not judged yet")]));
    for (const button of $("judge").querySelectorAll("[data-verdict]")) {
      button.setAttribute("aria-pressed", judged?.who === this.who && button.dataset.verdict === judged.verdict);
    }
  }

  #give(verdict) {
    this.give(verdict, { note: $("note").value, region: this.region.box });
  }
}
