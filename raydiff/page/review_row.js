// One row, large: its image with its heat map, all that the table says of it, and its URI to take along.

import { call } from "./api.js";
import { shown } from "./plot.js";
import { Judge } from "./review_judge.js";
import { fileOf, verdict } from "./review_words.js";
import { Viewer } from "./viewer.js";

const $ = (id) => document.getElementById(id);
const HEADINGS = { anomalous: "Anomalous", fine: "Normal", failed: "Not scored", scored: "Scored" };
const FIRST = ["score", "p_value", "threshold", "category", "category_guessed", "day", "time", "part", "label", "defect"];
const NAMES = { p_value: "p-value", map_uri: "Map", model_id: "Model", mask_uri: "Mask", category_guessed: "Model's guess" };
const LEFT_OUT = new Set(["row", "uri", "error", "is_anomalous", "height", "width", "details", "judged", "suggestion"]);

export class Row {
  /**
   * `step(by)` asks for another row, `views(row)` for all of its part; `closed()` is told at the end; `small(row)` is the
   * small picture, if it is known; `judge(verdict, {note, region})` is told what an inspector says of it.
   */
  constructor({ step, views, closed, small, judge }) {
    this.small = small;
    this.viewer = new Viewer($("stage"));
    this.judge = new Judge(this.viewer, judge);
    this.viewer.zoomed = (scale) => ($("percent").value = `${Math.round(scale * devicePixelRatio * 100)} %`);
    const buttons = {
      out: () => this.viewer.zoom(0.8),
      in: () => this.viewer.zoom(1.25),
      fit: () => this.viewer.fit(),
      one: () => this.viewer.zoom(1 / this.viewer.scale / devicePixelRatio),
      previous: () => step(-1),
      next: () => step(1),
      close: () => $("row").close(),
      copy: () => this.#copy(),
      views: () => {
        const { told } = this;
        $("row").close();
        views(told);
      },
    };
    for (const [id, does] of Object.entries(buttons)) $(id).addEventListener("click", does);
    $("row").addEventListener("close", () => {
      if ($("row").open) return; // told late: another row is shown by now
      this.abort?.abort();
      this.shows = this.listed = null;
      closed();
    });
    $("row").addEventListener("keydown", (event) => {
      if (event.key === "Escape") $("row").close(); // browsers do so themselves, but not where keys are sent by a program
      const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!by || event.defaultPrevented || event.target.closest("input") || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      step(by);
    });
  }

  /** Let somebody give verdicts, or nobody. */
  allow(who) {
    this.judge.allow(who);
  }

  opacity(share) {
    this.viewer.opacity(share);
  }

  /** Show a row, of which the list knows something already, as number `index` of `total`. */
  async show(told, index, total) {
    this.abort?.abort();
    this.abort = new AbortController();
    const { signal } = this.abort;
    if (this.shows !== told.row) this.judge.clear();
    this.shows = told.row;
    this.listed = told; // as the list has it
    this.index = index;
    $("place").textContent = `${(index + 1).toLocaleString("en")} of ${total.toLocaleString("en")}`;
    $("previous").disabled = index === 0;
    $("next").disabled = index + 1 >= total;
    if (document.activeElement.disabled) $("close").focus(); // a button without use would take keys and do nothing
    this.#facts(told);
    this.viewer.show(null);
    $("no-heat").hidden = true;
    $("waiting").textContent = "Fetching the image…";
    if (!$("row").open) $("row").showModal();
    const small = this.small(told.row);
    if (small?.image) this.#picture(small, told);
    try {
      const [all, picture] = await Promise.all([
        call(`v1/rows/${told.row}`, { signal }),
        call(`v1/rows/${told.row}/picture?size=large`, { signal }),
      ]);
      if (signal.aborted) return;
      told.judged = all.judged; // others may have judged it since the list was made
      this.#facts(all);
      this.#picture(picture, told);
    } catch (error) {
      if (error.name !== "AbortError" && !signal.aborted) $("waiting").textContent = error.message;
    }
  }

  #picture(found, told) {
    $("waiting").textContent = found.error ?? "";
    $("no-heat").textContent = found.no_heat ? `No heat map: ${found.no_heat}.` : "";
    $("no-heat").hidden = !found.no_heat;
    $("scale").hidden = !found.heat;
    if (!found.image) return this.viewer.show(null);
    this.viewer.show(found.image, found.width, found.height, fileOf(told.uri));
    this.viewer.warm(found.heat, found.box);
  }

  #facts(row) {
    this.judge.show(row.judged);
    const { rank, reason } = row.suggestion ?? {};
    $("suggested").textContent = `Suggestion ${[rank, reason].filter(told).join(": ")}`;
    $("suggested").hidden = !row.suggestion;
    const [kind] = verdict(row);
    $("name").textContent = fileOf(row.uri);
    $("verdict").className = `verdict ${kind}`;
    $("verdict").textContent = HEADINGS[kind];
    $("because").textContent = row.error ?? "";
    $("because").hidden = !row.error;
    $("uri").value = row.uri ?? "";
    $("views").hidden = !row.part;
    this.told = row;
    const names = [...FIRST, ...Object.keys(row).filter((name) => !FIRST.includes(name))];
    const facts = names.filter((name) => !LEFT_OUT.has(name) && told(row[name])).map((name) => [name, row[name]]);
    if (row.width) facts.splice(3, 0, ["size", `${row.width.toLocaleString("en")} × ${row.height.toLocaleString("en")} px`]);
    facts.push(...Object.entries(row.details ?? {}).filter(([, value]) => told(value)));
    $("numbers").replaceChildren(...facts.flatMap(([name, value]) => [tag("dt", called(name)), tag("dd", words(value))]));
  }

  async #copy() {
    let done = true;
    try {
      await navigator.clipboard.writeText($("uri").value); // not there where the page came over a network without TLS
    } catch {
      $("uri").select();
      done = document.execCommand("copy");
    }
    $("copied").textContent = done ? "The URI is copied." : "The URI is selected; copy it with the keyboard.";
    $("copy").textContent = done ? "Copied" : "Selected";
    setTimeout(() => ($("copy").textContent = "Copy"), 1500);
  }
}

function told(value) {
  return value !== null && value !== undefined && value !== "";
}

function called(name) {
  const words = NAMES[name] ?? name.replaceAll("_", " ");
  return words[0] === "p" && words[1] === "-" ? words : `${words[0].toUpperCase()}${words.slice(1)}`;
}

function words(value) {
  if (typeof value === "number" && !Number.isInteger(value)) return shown(value);
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

function tag(name, text) {
  return Object.assign(document.createElement(name), { textContent: text });
}
