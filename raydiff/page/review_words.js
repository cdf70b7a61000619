// What a row, its alarm and its verdict are called.

const CHIPS = { normal: "chip fine", defect: "chip anomalous", unsure: "chip unsure" };

/** What a row's alarm is called, as [kind, words]. */
export function verdict({ error, is_anomalous: alarm }) {
  if (error) return ["failed", "not scored"];
  if (alarm === null) return ["scored", "no verdict"];
  return alarm ? ["anomalous", "alarm"] : ["fine", "no alarm"];
}

/** The last part of a URI. */
export function fileOf(uri) {
  return (uri ?? "").split("/").at(-1) || "no name";
}

/** The mark of an inspector's verdict. */
export function markOf({ verdict: said }) {
  return Object.assign(document.createElement("span"), { className: CHIPS[said], textContent: said });
}

/** When it was given, as the reader's clock has it. */
export function when(judged) {
  return new Date(judged.when).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
}
