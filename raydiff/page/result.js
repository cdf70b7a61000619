// What the service says of the image that is shown: verdict, reason, numbers, and its place among normal images.

import { verdict } from "./gallery.js";
import { plot, shown } from "./plot.js";

const $ = (id) => document.getElementById(id);
const HEADINGS = { waiting: "Waiting", failed: "Not scored", anomalous: "Anomalous", fine: "Normal", scored: "Scored" };

export class Result {
  /** Show what is known of an image; nothing of null. */
  show(image, model) {
    $("facts").hidden = $("more").hidden = !image;
    if (!image) return;
    const [kind, words] = verdict(image);
    const { answer } = image;
    const normals = answer && (answer.category === null ? model.all : model.categories[answer.category]);
    $("name").textContent = image.name;
    $("verdict").className = `verdict ${kind}`;
    $("verdict").textContent = kind === "waiting" ? words : HEADINGS[kind];
    $("because").textContent = answer ? reason(answer, normals) : sentence(image.error ?? "");
    const numbers = answer ? facts(answer) : [];
    $("numbers").replaceChildren(...numbers.flatMap(([name, value]) => [tag("dt", name), tag("dd", value)]));
    $("standing").hidden = !normals;
    if (!normals) return;
    const whose = answer.category === null ? "all categories" : answer.category;
    const each = normals.normals > normals.scores.length ? `, a dot is ${percent(1 / normals.scores.length)} of them` : "";
    $("standing-title").textContent = `Among ${normals.normals} normal images of ${whose}${each}`;
    $("plot").replaceChildren(plot(normals, answer));
    $("promise").textContent = normals.promise ? sentence(normals.promise) : "";
  }
}

function reason({ score, threshold, p_value, is_anomalous }, normals) {
  if (threshold === null) return "The model is not calibrated, so there is no threshold, no verdict and no heat map.";
  const higher = Math.round(p_value * (normals.normals + 1)) - 1;
  return (
    `Its score ${shown(score)} is ${is_anomalous ? "" : "not "}above the threshold ${shown(threshold)}. ` +
    `Of ${normals.normals} normal images ${higher || "none"} ${higher > 1 ? "have" : "has"} one as high.`
  );
}

function facts(answer) {
  const found = [["Score", shown(answer.score)]];
  if (answer.p_value !== null) found.push(["p-value", shown(answer.p_value)]);
  if (answer.threshold !== null) found.push(["Threshold", shown(answer.threshold)]);
  const shows = answer.category_guessed ?? answer.category;
  if (shows) found.push(["Category", answer.category_guessed ? `${shows} (the model's guess)` : shows]);
  found.push(["Size", `${answer.width.toLocaleString("en")} × ${answer.height.toLocaleString("en")} px`]);
  for (const [name, value] of Object.entries(answer.details)) {
    if (value !== null) found.push([`${name[0].toUpperCase()}${name.slice(1).replaceAll("_", " ")}`, shown(value)]);
  }
  if (answer.note) found.push(["Note", answer.note]);
  return found;
}

function percent(share) {
  return `${shown(share * 100)} %`;
}

/** A sentence with its capital and its full stop. */
function sentence(text) {
  return text && `${text[0].toUpperCase()}${text.slice(1)}${/[.?!]$/.test(text) ? "" : "."}`;
}

function tag(name, text) {
  return Object.assign(document.createElement(name), { textContent: text });
}
