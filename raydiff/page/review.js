// The viewer of a score table: a filter and an order, the rows that are left as a grid of pictures, and one row large.

import { call } from "./api.js";
import { Choice } from "./review_choice.js";
import { Grid } from "./review_grid.js";
import { Giver, meant } from "./review_judge.js";
import { Pictures } from "./review_pictures.js";
import { Row } from "./review_row.js";
import { fill, mark, picture, tag } from "./review_tile.js";

const PAGE = 60; // rows that are asked for at a time
const PAGES_KEPT = 40;
const TYPED = 300; // milliseconds without a letter, before what was typed is searched for
const STAYED = 80; // milliseconds in sight, before a row is asked for
const SLOW = 400; // milliseconds, before it is said that a search takes its time
const DEFAULTS = { sort: "score", descending: "true" };
const MOST_OPTIONS = 1000;
const DIRECTIONS = {
  score: ["highest first", "lowest first"],
  p_value: ["highest first", "lowest first"],
  time: ["latest first", "earliest first"],
  uri: ["Z to A", "A to Z"],
  rank: ["last first", "first first"],
};
const FALLING = { score: "true", p_value: "false", time: "true", uri: "false", rank: "false" }; // what is looked for first

const $ = (id) => document.getElementById(id);
const form = $("filters");
const number = (value) => value.toLocaleString("en");

let table = null;
let query = null; // what is shown, as it is asked for
let pages = new Map(); // of its rows, the latest last
let fetching = new Map(); // those under way
let searching = null; // aborts what is under way
let coming = null; // the place of the row that is to be shown large, while it is fetched
let changes = null; // of verdicts that the list heeds, so that it stays as it is while it is gone through

const pictures = new Pictures();
const grid = new Grid($("grid"), { draw, gone, open });
const giver = new Giver(() => grid.refresh());
const choice = new Choice(grid, (indices, verdict) => giver.judge(rowsAt(indices), verdict));
const row = new Row({
  step: (by) => {
    const index = (coming ?? row.index) + by;
    if (index >= 0 && index < grid.total) select(index);
  },
  views: ({ part, category }) => {
    clear();
    form.elements.part.value = part;
    form.elements.category.value = `=${category ?? ""}`;
    $("further").open = true;
    search();
  },
  closed: () => {
    coming = null;
    grid.refresh();
    grid.focus(grid.current);
  },
  judge: async (verdict, more) => {
    const { listed, index } = row; // what is seen, wherever the list is by now
    if (!listed || coming !== null) return;
    if (!(await giver.judge([listed], verdict, more))) return;
    if (row.listed !== listed || coming !== null) return; // gone on from by hand
    row.judge.clear();
    select(Math.min(index + 1, grid.total - 1));
  },
  small: (number) => pictures.get(number),
});

async function start() {
  setHeat(75);
  try {
    table = await call("v1/table");
  } catch (error) {
    trouble(error.message);
    return;
  }
  const unfinished = table.complete ? "" : "not scored to its end";
  $("about").textContent = [table.name.split("/").slice(-2).join("/"), `${number(table.rows)} images`, unfinished].filter(Boolean).join(" · ");
  $("about").title = [table.name, table.model_id ? `model ${table.model_id}` : ""].filter(Boolean).join(", ");
  options("category", table.categories, (name) => name || "(no category)");
  options("reason", table.reasons, (name) => name);
  if (table.suggestions) {
    form.elements.suggested.append(new Option("suggested ones", "true"));
    form.elements.sort.append(new Option("suggestion", "rank"));
  }
  $("of-suggested").hidden = !table.suggestions;
  row.allow(table.who);
  giver.who = table.who;
  choice.allowed = Boolean(table.who);
  $("why").hidden = !table.reasons.length;
  $("of-part").hidden = !table.has_parts;
  form.elements.category.closest("label").hidden = table.categories.length < 2;
  if (table.has_times) form.querySelector("[name=sort] [value=time]").textContent = "time";
  for (const name of ["first_day", "last_day"]) {
    form.elements[name].min = table.first_day ?? "";
    form.elements[name].max = table.last_day ?? "";
  }
  for (const each of document.querySelectorAll(".heat-choice")) each.hidden = table.maps === "none";
  fromAddress();
}

/** Values stand behind a "=", so that an empty one is another than none. */
function options(name, values, told) {
  const few = values.slice(0, MOST_OPTIONS);
  form.elements[name].append(...few.map((value) => new Option(told(value), `=${value}`)));
}

function nameDirections() {
  const names = DIRECTIONS[form.elements.sort.value];
  [...form.elements.descending.options].forEach((option, place) => (option.textContent = names[place]));
}

/** What the form says, as the API takes it. */
function asked() {
  const found = new URLSearchParams();
  for (const { name, value } of form.elements) {
    if (!name || !value) continue;
    found.set(name, ["category", "reason"].includes(name) ? value.slice(1) : value);
  }
  return found;
}

function fromAddress() {
  const said = new URLSearchParams(location.hash.slice(1));
  for (const element of form.elements) {
    if (!element.name) continue;
    const value = said.get(element.name);
    const prefix = ["category", "reason"].includes(element.name) ? "=" : "";
    element.value = value === null ? "" : prefix + value;
    element.value ||= DEFAULTS[element.name] ?? "";
  }
  nameDirections();
  $("further").open ||= ["reason", "part", "first_day", "last_day", "min_score", "max_score", "min_p", "max_p"].some((name) => said.has(name));
  search();
}

async function search() {
  if (!form.checkValidity()) return;
  const wanted = asked();
  if (String(wanted) === String(query)) return;
  query = wanted;
  const kept = new URLSearchParams(wanted);
  for (const [name, value] of Object.entries(DEFAULTS)) if (kept.get(name) === value) kept.delete(name);
  history.replaceState(null, "", kept.size ? `#${kept}` : location.pathname);
  $("reset").hidden = ![...kept.keys()].some((name) => !(name in DEFAULTS));
  searching?.abort();
  searching = new AbortController();
  const { signal } = searching;
  const slow = setTimeout(() => ($("count").textContent = "Searching…"), SLOW);
  try {
    const found = await call(`v1/rows?${wanted}&offset=0&limit=${PAGE}`, { signal });
    clearTimeout(slow);
    if (signal.aborted) return;
    pages = new Map([[0, found.rows]]);
    changes = found.changes;
    fetching = new Map();
    trouble(found.trouble ?? "");
    choice.clear();
    const inside = $("grid").contains(document.activeElement); // after a button of the large image
    grid.reset(found.total);
    if (inside && found.total) grid.focus(0);
    count(found);
  } catch (error) {
    clearTimeout(slow);
    if (error.name === "AbortError" || signal.aborted) return;
    query = null;
    trouble(error.message);
  }
}

function count({ total, alarms, errors }) {
  const all = total === table.rows ? `${number(total)} images` : `${number(total)} of ${number(table.rows)} images`;
  const parts = [all, `${number(alarms)} alarm${alarms === 1 ? "" : "s"}`, errors ? `${number(errors)} not scored` : ""];
  $("count").textContent = total ? parts.filter(Boolean).join(" · ") : `None of ${number(table.rows)} images is left by these filters.`;
}

/** The row at a place of the list, null while it is not there. */
function rowAt(index) {
  const rows = pages.get(Math.floor(index / PAGE));
  return rows?.[index % PAGE] ?? null;
}

/** The rows at places of the list, once they are there; null for those that could not be fetched. */
async function rowsAt(indices) {
  await Promise.all(indices.map(fetchPage));
  return indices.map(rowAt);
}

/** Have the page there that holds a place of the list. */
function fetchPage(index) {
  const page = Math.floor(index / PAGE);
  if (pages.has(page)) return Promise.resolve();
  if (!fetching.has(page)) fetching.set(page, fetched(page, pages, fetching));
  return fetching.get(page);
}

async function fetched(page, mine, asking) {
  try {
    const heeded = changes === null ? "" : `&changes=${changes}`;
    const asked = `v1/rows?${query}${heeded}&offset=${page * PAGE}&limit=${PAGE}`;
    const found = await call(asked, { signal: searching.signal });
    mine.set(page, found.rows);
    const [from, to] = grid.sight.map((each) => Math.floor(each / PAGE));
    for (const each of mine.keys()) {
      if (mine.size <= PAGES_KEPT) break;
      if (each < from || each > to) mine.delete(each);
    }
    if (mine === pages) grid.refresh();
  } catch (error) {
    if (error.name !== "AbortError" && mine === pages) trouble(error.message);
  } finally {
    asking.delete(page);
  }
}

function draw(button, index) {
  const told = rowAt(index);
  choice.mark(button, index);
  if (!told) {
    button.replaceChildren(tag("span", "picture"), tag("span", "told", "…"));
    button.setAttribute("aria-label", "loading");
    clearTimeout(button.timer);
    button.timer = setTimeout(() => fetchPage(index), STAYED);
    return;
  }
  if (button.row === told.row) {
    mark(button, told);
    return;
  }
  button.row = told.row;
  button.removeAttribute("aria-label");
  const place = fill(button, told, query.get("sort") === "time");
  const found = pictures.get(told.row);
  if (found) picture(place, found);
  else button.timer = setTimeout(() => pictures.ask(told.row, (made) => picture(place, made)), STAYED);
}

function gone(button) {
  clearTimeout(button.timer);
  if (button.row !== undefined) pictures.forget(button.row);
}

function open(index) {
  if (rowAt(index)) select(index);
}

async function select(index) {
  coming = index;
  grid.focus(index);
  await fetchPage(index);
  if (coming !== index) return; // another is wanted by now, or none
  coming = null;
  const told = rowAt(index);
  if (told && grid.current === index) row.show(told, index, grid.total);
}

/** Take all filters away. */
function clear() {
  if (form.elements.sort.value === "rank") sortBy(DEFAULTS.sort);
  for (const { name } of form.elements) if (name && !(name in DEFAULTS)) form.elements[name].value = "";
}

function sortBy(name) {
  form.elements.sort.value = name;
  form.elements.descending.value = FALLING[name];
  nameDirections();
}

function setHeat(value) {
  for (const each of document.querySelectorAll(".opacity")) {
    each.value = value;
    each.setAttribute("aria-valuetext", `${value} %`);
  }
  document.body.style.setProperty("--heat", value / 100);
  row.opacity(value / 100);
}

function trouble(sentence) {
  $("trouble").textContent = sentence;
  $("trouble").hidden = !sentence;
}

function listen() {
  let typing;
  form.addEventListener("input", (event) => {
    const { name, value } = event.target;
    if (name === "sort") sortBy(value);
    if (name === "suggested") sortBy(value ? "rank" : DEFAULTS.sort);
    clearTimeout(typing);
    typing = setTimeout(search, event.target.matches("select") ? 0 : TYPED);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    search();
  });
  $("reset").addEventListener("click", () => {
    clear();
    search();
    form.elements.text.focus();
  });
  for (const each of document.querySelectorAll(".opacity")) each.addEventListener("input", () => setHeat(Number(each.value)));
  document.addEventListener("keydown", (event) => {
    if (event.key.toLowerCase() !== "h" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (!event.target.closest("#stage, #grid, .opacity, .row-bar")) return; // elsewhere a letter may be a screen reader's
    setHeat(Number(document.querySelector(".opacity").value) ? 0 : 75);
  });
  $("grid").addEventListener("keydown", async (event) => {
    const [tile, verdict] = [event.target.closest(".tile"), meant(event)];
    if (!tile || !verdict) return;
    const index = Number(tile.dataset.index);
    if (choice.size) choice.give(verdict);
    else if ((await giver.judge(rowsAt([index]), verdict)) && !$("row").open) grid.focus(index + 1);
  });
  addEventListener("hashchange", fromAddress);
}

listen();
start();
