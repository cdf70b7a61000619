// Requests to the service's API: with the token, where it asks for one, and again later, where it is busy.

const KEPT = "raydiff-token"; // in sessionStorage: gone when the tab is closed
const WAIT_SECONDS = 2; // where a busy service does not say how long

let asking = null;
let door = null; // built when it is needed first

export class Refused extends Error {
  constructor(status, sentence) {
    super(sentence);
    this.status = status;
  }
}

/** The answer's JSON; `busy` is called while the service has no place for the request. */
export async function call(path, options = {}, busy = () => {}) {
  for (;;) {
    const token = sessionStorage.getItem(KEPT);
    const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
    let response;
    try {
      response = await fetch(path, { ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refused(0, "The service cannot be reached; is it still running?");
    }
    if (response.status === 401) {
      if (token === sessionStorage.getItem(KEPT)) sessionStorage.removeItem(KEPT);
      await ask(Boolean(token));
    } else if (response.status === 503 || response.status === 429) {
      busy();
      const seconds = Number(response.headers.get("Retry-After")) || WAIT_SECONDS;
      await pause(seconds * 1000, options.signal);
    } else {
      const found = await response.json().catch(() => ({ error: `The service answered with status ${response.status}.` }));
      if (!response.ok) throw new Refused(response.status, found.error);
      return found;
    }
  }
}

function pause(milliseconds, signal) {
  return new Promise((go, stop) => {
    const timer = setTimeout(go, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      stop(signal.reason);
    });
  });
}

/** Ask for the token, once for all requests that wait for it. */
function ask(wrong) {
  if (sessionStorage.getItem(KEPT)) return Promise.resolve();
  if (asking) return asking;
  door ??= build();
  const field = door.querySelector("#token");
  if (wrong) door.querySelector("#door-told").textContent = "That was not its token; please give it again.";
  asking = new Promise((go) => {
    door.querySelector("#key").onsubmit = () => {
      sessionStorage.setItem(KEPT, field.value.trim());
      field.value = "";
      asking = null;
      go();
    };
    door.showModal();
  });
  return asking;
}

/** The dialog that asks for it. */
function build() {
  const made = document.createElement("dialog");
  made.id = "door";
  made.setAttribute("aria-labelledby", "door-title");
  made.innerHTML = `<form id="key" method="dialog">
    <h2 id="door-title">This service asks for its token</h2>
    <p id="door-told" class="small">It is what RAYDIFF_SERVE_TOKEN was when the service was started. This tab forgets it
      when it is closed.</p>
    <label>Token <input id="token" type="password" autocomplete="off" required></label>
    <button type="submit" class="button">Go on</button>
  </form>`;
  made.addEventListener("cancel", (event) => event.preventDefault()); // without the token there is nothing behind it
  document.body.append(made);
  return made;
}
