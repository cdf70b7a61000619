// A row as a tile of the list: its small picture, what the table says of it in short, and an inspector's verdict.

import { shown } from "./plot.js";
import { fileOf, markOf, verdict, when } from "./review_words.js";

/** Fill a tile with a row; where its picture goes. */
export function fill(button, told, byTime) {
  const [kind, words] = verdict(told);
  const place = tag("span", "picture");
  const score = told.score === null ? "" : shown(told.score);
  const chance = told.p_value === null ? "" : `p ${shown(told.p_value)}`;
  const below = tag("span", "told");
  below.append(
    line(tag("span", `chip ${kind}`, words), tag("span", "", score)),
    Object.assign(tag("span", "file", fileOf(told.uri)), { title: told.uri }),
    line(tag("span", "small", told.category_guessed ?? told.category ?? ""), tag("span", "", byTime ? (told.day ?? "") : chance)),
  );
  button.replaceChildren(place, below);
  mark(button, told);
  return place;
}

/** Have a tile say an inspector's verdict of its row, if there is one. */
export function mark(button, { judged }) {
  const before = button.querySelector(".said");
  if (!judged) return before?.remove();
  const made = Object.assign(markOf(judged), { title: `${judged.who}, ${when(judged)}` });
  made.classList.add("said");
  if (before) before.replaceWith(made);
  else button.append(made);
}

/** Put a small picture into its place, or why there is none. */
export function picture(place, { image, error, width, height, heat, box }) {
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

export function tag(name, className, text = "") {
  return Object.assign(document.createElement(name), { className, textContent: text });
}

function line(...children) {
  const node = tag("span", "line");
  node.append(...children);
  return node;
}
