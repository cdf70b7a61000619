// The viewer of a score table: a filter and an order, the rows that are left as a grid of pictures, and one row large.

import { call } from "./api.js";
import { shown } from "./plot.js";
import { Grid } from "./review_grid.js";
import { Pictures } from "./review_pictures.js";
import { Row, fileOf, verdict } from "./review_row.js";

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
};
const FALLING = { score: "true", p_value: "false", time: "true", uri: "false" }; // what is looked for first

const $ = (id) => document.getElementById(id);
const form = $("filters");
const number = (value) => value.toLocaleString("en");

let table = null;
let query = null; // what is shown, as it is asked for
let pages = new Map(); // of its rows, the latest last
let fetching = new Map(); // those under way
let searching = null; // aborts what is under way

const pictures = new Pictures();
const grid = new Grid($("grid"), { draw, gone, open });
const row = new Row({
  step: (by) => (grid.current + by >= 0 && grid.current + by < grid.total ? select(grid.current + by) : null),
  views: ({ part, category }) => {
    clear();
    form.elements.part.value = part;
    form.elements.category.value = `=${category ?? ""}`;
    $("further").open = true;
    search();
  },
  closed: () => grid.focus(grid.current),
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
    element.value = value === null ? (DEFAULTS[element.name] ?? "") : prefix + value;
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
    fetching = new Map();
    trouble("");
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

/** Have the page there that holds a place of the list. */
function fetchPage(index) {
  const page = Math.floor(index / PAGE);
  if (pages.has(page)) return Promise.resolve();
  if (!fetching.has(page)) fetching.set(page, fetched(page, pages, fetching));
  return fetching.get(page);
}

async function fetched(page, mine, asking) {
  try {
    const found = await call(`v1/rows?${query}&offset=${page * PAGE}&limit=${PAGE}`, { signal: searching.signal });
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
  if (!told) {
    button.replaceChildren(tag("span", "picture"), tag("span", "told", "…"));
    button.setAttribute("aria-label", "loading");
    clearTimeout(button.timer);
    button.timer = setTimeout(() => fetchPage(index), STAYED);
    return;
  }
  if (button.row === told.row) return;
  button.row = told.row;
  button.removeAttribute("aria-label");
  const [kind, words] = verdict(told);
  const place = tag("span", "picture");
  const score = told.score === null ? "" : shown(told.score);
  const byTime = query.get("sort") === "time";
  const chance = told.p_value === null ? "" : `p ${shown(told.p_value)}`;
  const below = tag("span", "told");
  below.append(
    line(tag("span", `chip ${kind}`, words), tag("span", "", score)),
    Object.assign(tag("span", "file", fileOf(told.uri)), { title: told.uri }),
    line(tag("span", "small", told.category_guessed ?? told.category ?? ""), tag("span", "", byTime ? (told.day ?? "") : chance)),
  );
  button.replaceChildren(place, below);
  const found = pictures.get(told.row);
  if (found) picture(place, found);
  else button.timer = setTimeout(() => pictures.ask(told.row, (made) => picture(place, made)), STAYED);
}

function gone(button) {
  clearTimeout(button.timer);
  if (button.row !== undefined) pictures.forget(button.row);
}

/** Put a small picture into its place, or why there is none. */
function picture(place, { image, error, width, height, heat, box }) {
  if (!image) {
    place.replaceChildren(tag("span", "why", error));
    return;
  }
  const both = tag("span", "both");
  both.style.setProperty("--ratio", width / height);
  both.append(Object.assign(document.createElement("img"), { className: "image", src: image, alt: "" }));
  if (heat) {
    const [x, y, wide, high] = box;
    const over = Object.assign(document.createElement("img"), { className: "heat", src: heat, alt: "" });
    const shares = { left: x / width, top: y / height, width: wide / width, height: high / height };
    for (const [side, share] of Object.entries(shares)) over.style[side] = `${100 * share}%`;
    both.append(over);
  }
  place.replaceChildren(both);
}

function open(index) {
  if (rowAt(index)) select(index);
}

async function select(index) {
  grid.focus(index);
  await fetchPage(index);
  const told = rowAt(index);
  if (told && grid.current === index) row.show(told, index, grid.total);
}

/** Take all filters away. */
function clear() {
  for (const { name } of form.elements) if (name && !(name in DEFAULTS)) form.elements[name].value = "";
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

function line(...children) {
  const node = tag("span", "line");
  node.append(...children);
  return node;
}

function tag(name, className, text = "") {
  return Object.assign(document.createElement(name), { className, textContent: text });
}

function listen() {
  let typing;
  form.addEventListener("input", (event) => {
    if (event.target.name === "sort") {
      form.elements.descending.value = FALLING[event.target.value];
      nameDirections();
    }
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
  addEventListener("hashchange", fromAddress);
}

listen();
start();
