// The list of images: a small picture of each, its verdict, and keys to go through them.

const SIDE = 112; // of a small picture's longer side, pixels

const VERDICTS = {
  waiting: ["waiting", "waits"],
  scoring: ["waiting", "is scored…"],
  busy: ["waiting", "waits, the service is busy"],
  failed: ["failed", "not scored"],
  anomalous: ["anomalous", "anomalous"],
  fine: ["fine", "normal"],
  scored: ["scored", "scored"],
};

/** What an image's state or verdict is called, as [kind, words]. */
export function verdict({ state, busy, answer }) {
  if (state !== "done") return VERDICTS[state === "scoring" && busy ? "busy" : state] ?? VERDICTS.waiting;
  return VERDICTS[answer.is_anomalous === null ? "scored" : answer.is_anomalous ? "anomalous" : "fine"];
}

export class Gallery {
  constructor(list, selected) {
    this.list = list;
    this.selected = selected;
    list.addEventListener("keydown", (event) => this.#key(event));
  }

  add(image) {
    const row = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    const words = Object.assign(document.createElement("span"), { className: "words" });
    const name = Object.assign(document.createElement("span"), { className: "file", textContent: image.name, title: image.name });
    image.told = Object.assign(document.createElement("span"), { className: "chip" });
    image.thumb = Object.assign(document.createElement("canvas"), { className: "thumb", width: SIDE, height: SIDE });
    words.append(name, image.told);
    button.append(image.thumb, words);
    button.addEventListener("click", () => this.selected(image));
    row.append(button);
    image.row = row;
    this.list.append(row);
    this.update(image);
  }

  update(image) {
    const [kind, words] = verdict(image);
    image.told.className = `chip ${kind}`;
    image.told.textContent = words;
  }

  /** Draw an image's small picture, with its heat map where there is one. */
  picture(image, bitmap, heat = null, answer = null) {
    const scale = SIDE / Math.max(bitmap.width, bitmap.height);
    const width = Math.max(1, Math.round(bitmap.width * scale));
    const height = Math.max(1, Math.round(bitmap.height * scale));
    Object.assign(image.thumb, { width, height });
    const context = image.thumb.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, width, height);
    if (heat) {
      const [x, y, wide, high] = answer.map_box;
      const across = width / answer.width;
      const down = height / answer.height;
      context.globalAlpha = 0.75;
      context.drawImage(heat, x * across, y * down, wide * across, high * down);
    }
    image.thumbnail = true;
    image.size = [bitmap.width, bitmap.height];
  }

  select(image) {
    for (const button of this.list.querySelectorAll("[aria-current]")) button.removeAttribute("aria-current");
    const button = image?.row.firstChild;
    button?.setAttribute("aria-current", "true");
    button?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  /** Put the images in their order, or those first that are least likely to be normal. */
  order(images, worstFirst) {
    const chance = ({ answer }) => answer?.p_value ?? 2;
    const over = ({ answer }) => (answer ? answer.score / (answer.threshold || 1) : -Infinity);
    const sorted = worstFirst ? [...images].sort((a, b) => chance(a) - chance(b) || over(b) - over(a)) : images;
    this.list.append(...sorted.map(({ row }) => row));
  }

  clear() {
    this.list.replaceChildren();
  }

  #key(event) {
    const steps = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 };
    const row = event.target.closest("li");
    if (!(event.key in steps) || !row) return;
    event.preventDefault();
    const next = steps[event.key] > 0 ? row.nextElementSibling : row.previousElementSibling;
    next?.firstChild.focus();
    next?.firstChild.click();
  }
}
