// The inspection page: images come in, are sent one by one to the service, and are shown with what it says of them.

import { call } from "./api.js";
import { Gallery } from "./gallery.js";
import { Result } from "./result.js";
import { Viewer } from "./viewer.js";

const AT_ONCE = 2; // one is on its way while another is scored

const OF_PAGES = /\.(tiff?|dcm|dicom)$/i; // files that may hold several images

const $ = (id) => document.getElementById(id);
const images = [];
let model = null;
let selected = null;
let drawn = null; // the address of what the viewer shows
let running = 0;

const viewer = new Viewer($("stage"));
const result = new Result();
const gallery = new Gallery($("list"), select);

async function start() {
  setOpacity();
  try {
    model = await call("v1/model");
  } catch (error) {
    trouble(error.message);
    return;
  }
  const names = [...new Set([model.name, model.method])];
  $("model").textContent = [...names, model.model_id.slice(0, 8)].join(" · ");
  $("model").title = `model ${model.model_id}, raydiff ${model.version}`;
  const categories = Object.keys(model.categories);
  $("category").append(new Option(model.guesses ? "what the model sees" : "any category", ""));
  $("category").append(...categories.map((name) => new Option(name, name)));
  $("category").closest("label").hidden = categories.length < 2;
  $("reconstruct").hidden = !model.reconstructs;
  work();
}

function add(files) {
  for (const file of files) {
    const image = { file, name: file.name || "pasted image", state: "waiting", category: $("category").value, url: null };
    images.push(image);
    gallery.add(image);
  }
  if (!images.length) return;
  $("work").hidden = false;
  document.body.classList.add("working");
  if (!selected) select(images[0]);
  summarise();
  work();
}

function work() {
  while (model && running < AT_ONCE) {
    const image = images.find((each) => each.state === "waiting");
    if (!image) return;
    running += 1;
    score(image).finally(() => {
      running -= 1;
      work();
    });
  }
}

async function score(image) {
  image.state = "scoring";
  image.abort = new AbortController();
  refresh(image);
  try {
    if (image.file.size > model.limits.max_bytes) {
      const [bytes, most] = [image.file.size, model.limits.max_bytes].map((number) => number.toLocaleString("en"));
      throw new Error(`The file has ${bytes} bytes, and ${most} are the limit here.`);
    }
    await image.file.slice(0, 1).arrayBuffer().catch(() => {
      throw new Error("This cannot be read; if it is a folder, open it and drop the images in it.");
    });
    const bitmap = await createImageBitmap(image.file).catch(() => null); // null: a file that browsers do not show
    if (bitmap) gallery.picture(image, bitmap);
    refresh(image);
    image.answer = await ask(image, !bitmap || model.reads_levels);
    const { width, height, picture } = image.answer;
    if (!picture && (width !== bitmap.width || height !== bitmap.height)) image.answer = await ask(image, true);
    if (image.state === "gone") return;
    image.state = "done";
    const seen = image.answer.picture ? await createImageBitmap(blob(image.answer.picture)) : bitmap;
    const heat = image.answer.map ? await createImageBitmap(blob(image.answer.map)) : null;
    gallery.picture(image, seen, heat, image.answer);
    for (const each of new Set([bitmap, seen, heat])) each?.close();
  } catch (error) {
    if (image.state === "gone") return;
    image.state = "failed";
    image.error = error.message;
  }
  refresh(image);
  summarise();
  if ($("worst").getAttribute("aria-pressed") === "true") gallery.order(images, true);
}

function ask(image, picture, reconstruction = false) {
  const parameters = new URLSearchParams({ maps: true, picture, reconstruction });
  if (image.category) parameters.set("category", image.category);
  if (image.page) parameters.set("page", image.page);
  const options = {
    method: "POST",
    body: image.file,
    headers: { "Content-Type": "application/octet-stream" },
    signal: image.abort.signal,
  };
  return call(`v1/score?${parameters}`, options, () => {
    image.busy = true;
    refresh(image);
  });
}

/** The bytes of a data URI, which the page's policy lets no fetch read. */
function blob(uri) {
  const [head, text] = uri.split(",");
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Blob([bytes], { type: head.slice(5).split(";")[0] });
}

function refresh(image) {
  gallery.update(image);
  if (image === selected) show();
}

function select(image) {
  selected = image;
  gallery.select(image);
  show();
}

function show() {
  const image = selected;
  result.show(image, model);
  $("pages").hidden = !(image?.page || (image?.state === "failed" && OF_PAGES.test(image.name)));
  $("page").value = image?.page ?? 1;
  const answer = image?.answer;
  $("waiting").textContent = image?.state === "failed" ? "There is nothing to show of this file." : "";
  if (!image || image.state === "failed" || (!answer && !image.thumbnail)) {
    if (image && image.state !== "failed") $("waiting").textContent = "Waiting for the service…";
    viewer.show(null);
    drawn = null;
    return;
  }
  image.url ??= URL.createObjectURL(image.file);
  const url = answer?.picture ?? image.url;
  const [width, height] = answer ? [answer.width, answer.height] : image.size;
  if (drawn !== url) viewer.show(url, width, height, image.name);
  drawn = url;
  viewer.warm(answer?.map ?? null, answer?.map_box ?? []);
  reconstruct(image);
}

/** Lay over the image what the method takes it for, where that is wanted; the service makes it when it is asked. */
async function reconstruct(image) {
  const wanted = $("reconstruct").getAttribute("aria-pressed") === "true" && image.state === "done";
  viewer.replace(wanted ? (image.made ?? null) : null, image.answer?.map_box ?? []);
  $("waiting").textContent = wanted && !image.made ? "Reconstructing…" : "";
  if (!wanted || image.made || image.making) return;
  image.making = true;
  try {
    image.made = (await ask(image, false, true)).reconstruction;
  } catch (error) {
    if (image.state !== "gone") $("told").textContent = `No reconstruction: ${error.message}`;
    $("reconstruct").setAttribute("aria-pressed", "false");
  }
  image.making = false;
  if (image === selected) show();
}

function toggleReconstruction() {
  if ($("reconstruct").hidden) return;
  const on = $("reconstruct").getAttribute("aria-pressed") !== "true";
  $("reconstruct").setAttribute("aria-pressed", on);
  if (selected) show();
}

function summarise() {
  const count = (test) => images.filter(test).length;
  const waiting = count(({ state }) => state === "waiting" || state === "scoring");
  const parts = [
    [count(({ answer }) => answer?.is_anomalous), "anomalous"],
    [count(({ answer }) => answer?.is_anomalous === false), "normal"],
    [count(({ state, answer }) => state === "done" && answer.is_anomalous === null), "scored"],
    [count(({ state }) => state === "failed"), "not scored"],
    [waiting, "to go"],
  ];
  const told = parts.filter(([number]) => number).map(([number, words]) => `${number} ${words}`);
  $("summary").textContent = told.join(" · ");
  if (!waiting) $("told").textContent = `All done: ${told.join(", ")}.`; // to screen readers, once and not at each image
}

function trouble(sentence) {
  $("trouble").textContent = sentence;
  $("trouble").hidden = false;
  $("model").textContent = "";
}

function clear() {
  for (const image of images.splice(0)) {
    image.state = "gone";
    image.abort?.abort();
    if (image.url) URL.revokeObjectURL(image.url); // until then it costs nothing: the bytes stay in their file
  }
  gallery.clear();
  select(null);
  $("work").hidden = true;
  document.body.classList.remove("working");
  $("files").focus();
}

/** What is shown, as a table for a spreadsheet. */
function save() {
  const columns = ["name", "score", "p_value", "threshold", "is_anomalous", "category", "category_guessed", "model_id", "error"];
  const rows = images.map(({ name, answer, error }) => columns.map((column) => ({ ...answer, name, error })[column] ?? ""));
  // A spreadsheet would take a name that begins like a formula for one.
  const cell = (value) => `"${String(value).replace(/^(?=[=+@\t])/, "'").replaceAll('"', '""')}"`;
  const text = [columns, ...rows].map((row) => row.map(cell).join(",")).join("\r\n");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = "scores.csv";
  link.click();
  URL.revokeObjectURL(link.href);
}

function setOpacity() {
  const value = $("opacity").value;
  viewer.opacity(value / 100);
  $("opacity").setAttribute("aria-valuetext", `${value} %`);
}

function listen() {
  $("files").addEventListener("change", (event) => {
    add(event.target.files);
    event.target.value = ""; // the same file may be chosen again
  });
  $("opacity").addEventListener("input", setOpacity);
  $("out").addEventListener("click", () => viewer.zoom(0.8));
  $("in").addEventListener("click", () => viewer.zoom(1.25));
  $("fit").addEventListener("click", () => viewer.fit());
  $("one").addEventListener("click", () => viewer.zoom(1 / viewer.scale / devicePixelRatio));
  viewer.zoomed = (scale) => ($("percent").value = `${Math.round(scale * devicePixelRatio * 100)} %`);
  $("reconstruct").addEventListener("click", toggleReconstruction);
  $("clear").addEventListener("click", clear);
  $("pages").addEventListener("submit", (event) => {
    event.preventDefault();
    Object.assign(selected, { page: $("page").value, state: "waiting", answer: undefined, error: undefined, made: undefined });
    refresh(selected);
    work();
  });
  $("save").addEventListener("click", save);
  $("worst").addEventListener("click", (event) => {
    const on = event.target.getAttribute("aria-pressed") !== "true";
    event.target.setAttribute("aria-pressed", on);
    gallery.order(images, on);
  });
  document.addEventListener("keydown", (event) => {
    const key = event.key.toLowerCase();
    if (!"hr".includes(key) || event.ctrlKey || event.metaKey || event.altKey) return;
    if (!event.target.closest("#stage, #list, #opacity")) return; // elsewhere a letter may be a screen reader's
    if (key === "r") {
      toggleReconstruction();
      return;
    }
    $("opacity").value = Number($("opacity").value) ? 0 : 75;
    setOpacity();
  });
  document.addEventListener("paste", (event) => add([...event.clipboardData.files]));
  let over = 0; // elements that what is dragged is over
  const dragged = (change) => {
    over = change(over);
    $("dropping").hidden = over <= 0;
  };
  const carries = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragenter", (event) => carries(event) && dragged((count) => count + 1));
  addEventListener("dragleave", (event) => carries(event) && dragged((count) => count - 1));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    dragged(() => 0);
    add([...event.dataTransfer.files]);
  });
}

listen();
start();
