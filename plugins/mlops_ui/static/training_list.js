// The list of trainings: the progress of those under way comes by the event stream. The server writes the list anew
// when one has ended, and every few seconds for those that have begun.

import { api } from "./api.js";
import { Progress } from "./progress.js";
import { TrainingProgressWebSocket } from "./stream.js";

const REFRESH_MS = 5000;

const list = /** @type {HTMLElement} */ (document.getElementById("runs"));
const stream = new TrainingProgressWebSocket(`${api}/stream`);
/** @type {Set<string>} */
const followed = new Set();

/** @param {string} run */
const row = (run) => document.querySelector(`tr[data-run="${CSS.escape(run)}"]`);

/**
 * @param {string} run
 * @param {number} after
 */
function follow(run, after) {
  const progress = new Progress(() => row(run));
  followed.add(run);
  stream.subscribe(`runs/${run}`, after, { onEvents: (events) => progress.take(events), onEnded: () => void refresh() });
}

function followAll() {
  for (const each of list.querySelectorAll("tr[data-run]:not([data-ended])")) {
    const { run = "", after = "0" } = /** @type {HTMLElement} */ (each).dataset;
    if (!followed.has(run)) follow(run, Number(after));
  }
}

async function refresh() {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page.getElementById("runs");
  if (fresh && fresh.innerHTML !== list.innerHTML) list.replaceChildren(...fresh.childNodes);
  followAll();
}

followAll();
setInterval(() => { if (!document.hidden) refresh().catch(() => {}); }, REFRESH_MS);
