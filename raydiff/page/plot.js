// Where an image's score lies among those of normal images: each dot is one of them, or an equal share of them.

const WIDTH = 340;
const RADIUS = 3.4;
const BASE = 86; // of the dots, from the top
const ROOM = 4; // how often the normal images' range a score may lie beyond it, before it is drawn at the edge

/** An SVG of normal images (as /v1/model tells of them) and one image's answer. */
export function plot(normals, answer) {
  const { scores, threshold } = normals;
  const first = Math.min(scores[0], answer.score);
  const last = Math.max(scores.at(-1), threshold);
  const span = last - first || Math.abs(last) || 1;
  const beyond = answer.score > last + ROOM * span;
  const end = beyond ? last + 0.6 * span : Math.max(last, answer.score);
  const [left, right] = [first - 0.04 * (end - first || span), end + 0.06 * (end - first || span)];
  const across = (value) => 8 + ((value - left) / (right - left)) * (WIDTH - 16);

  const svg = make("svg", { viewBox: `0 0 ${WIDTH} 128`, role: "img", "aria-label": told(normals, answer) });
  const limit = across(threshold);
  svg.append(make("rect", { class: "alarm", x: limit, y: 18, width: WIDTH - limit, height: BASE - 18 }));
  const heights = new Map();
  const columns = scores.map((score) => Math.round(across(score) / (2 * RADIUS)));
  const tallest = Math.max(...columns.map((column) => columns.filter((other) => other === column).length));
  const step = Math.min(2 * RADIUS, (BASE - 26) / tallest);
  columns.forEach((column) => {
    const height = heights.get(column) ?? 0;
    heights.set(column, height + 1);
    svg.append(make("circle", { class: "normal", cx: column * 2 * RADIUS, cy: BASE - RADIUS - height * step, r: RADIUS - 0.6 }));
  });
  svg.append(make("line", { class: "axis", x1: 0, x2: WIDTH, y1: BASE, y2: BASE }));
  svg.append(make("line", { class: "limit", x1: limit, x2: limit, y1: 14, y2: BASE }));
  svg.append(words(`threshold ${shown(threshold)}`, limit, 10, "limit"));

  const place = beyond ? WIDTH - 12 : across(answer.score);
  const kind = answer.is_anomalous ? "anomalous" : "fine";
  svg.append(make("line", { class: `stem ${kind}`, x1: place, x2: place, y1: 22, y2: BASE + 4 }));
  const mark = beyond ? `M${place + 8} ${BASE + 9} l-11 -6 v12 z` : `M${place} ${BASE + 2} l6.5 11 h-13 z`;
  svg.append(make("path", { class: `mark ${kind}`, d: mark }));
  svg.append(words(`this image ${shown(answer.score)}${beyond ? ", far beyond" : ""}`, place, BASE + 30, kind));
  return svg;
}

/** The same in a sentence. */
function told({ normals, threshold, scores }, answer) {
  const side = answer.is_anomalous ? "above" : "not above";
  return (
    `The score ${shown(answer.score)} is ${side} the threshold ${shown(threshold)}; the ${normals} normal images ` +
    `have scores from ${shown(scores[0])} to ${shown(scores.at(-1))}.`
  );
}

/** A number in four digits. */
export function shown(value) {
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e5)) return value.toExponential(2);
  return value.toLocaleString("en", { maximumSignificantDigits: 4 });
}

/** Text that is kept inside, with its middle near a place. */
function words(text, x, y, kind) {
  const half = text.length * 3.2;
  const anchor = x < half ? "start" : x > WIDTH - half ? "end" : "middle";
  const node = make("text", { class: kind, x: anchor === "start" ? 2 : anchor === "end" ? WIDTH - 2 : x, y, "text-anchor": anchor });
  node.textContent = text;
  return node;
}

function make(name, attributes) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}
