// A training's page: progress, curves, resources and log as they come, by the event stream. Where no WebSocket comes
// through, the missing events are asked for every few seconds. Every event is shown once.

import { api, get, post, Problem } from "./api.js";
import { Curves } from "./curves.js";
import { Progress, stateAfter } from "./progress.js";
import { Resources } from "./resources.js";
import { TrainingProgressWebSocket } from "./stream.js";
import { showTaskLog } from "./task_log.js";

/** @typedef {import("./progress.js").TrainingEvent} TrainingEvent */

const POINTS = 800;
const ASK_MS = 3000;
const MOST_ROWS = 200;
const QUIET = new Set(["iteration", "resources"]);

const place = /** @type {HTMLElement} */ (document.getElementById("curves"));
const { run = "", after = "0" } = place.dataset;
const topic = `runs/${run}`;
const path = `training/runs/${encodeURIComponent(run)}`;
const curves = new Curves(place);
const resources = new Resources(/** @type {HTMLElement} */ (document.getElementById("resources")));
const progress = new Progress(() => document.getElementById("summary"));
let ended = place.dataset.ended !== undefined;
let live = false;

/** @param {string} words */
function say(words) {
  const link = document.getElementById("link");
  if (link) link.textContent = words;
}

/** @param {TrainingEvent[]} events */
function take(events) {
  const iterations = events.filter(({ kind }) => kind === "iteration").map(({ payload }) => payload);
  curves.add(iterations.map(({ iteration, best, metrics }) => ({ iteration, best: best?.iteration, metrics })));
  resources.add(events.filter(({ kind }) => kind === "resources").map(({ at, payload }) => ({ at, used: payload })));
  log(events.filter(({ kind }) => !QUIET.has(kind)));
  const state = events.map(stateAfter).findLast((each) => each !== undefined);
  if (state !== undefined) offer(state);
  if (events.at(-1)?.terminal) finish();
  else progress.take(events);
}

/**
 * Show the commands that a run in this state takes.
 * @param {string} state
 */
function offer(state) {
  for (const button of document.querySelectorAll("#commands button")) {
    if (button instanceof HTMLElement) button.hidden = !(button.dataset.when ?? "").split(" ").includes(state);
  }
}

/** @param {TrainingEvent[]} events */
function log(events) {
  if (events.length === 0) return;
  const rows = /** @type {HTMLTableSectionElement} */ (document.getElementById("events"));
  const made = events.slice(-MOST_ROWS).map(({ sequence, at, kind, payload }) => {
    const row = document.createElement("tr");
    const words = Object.entries(payload).filter(([, value]) => value !== null);
    const said = words.map(([name, value]) => `${name} ${typeof value === "object" ? JSON.stringify(value) : value}`).join(", ");
    for (const text of [String(sequence), at.slice(11, 19), kind, payload.explanation ?? said]) row.insertCell().textContent = text;
    return row;
  });
  rows.prepend(...made.reverse());
  while (rows.rows.length > MOST_ROWS) rows.lastElementChild?.remove();
}

/** The end, in the server's words. */
async function finish() {
  ended = true;
  say("");
  document.getElementById("commands")?.remove();
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const summary = page.getElementById("summary");
  if (answer.ok && summary) document.getElementById("summary")?.replaceWith(summary);
}

/** Ask for the events that have not come. */
async function catchUp() {
  for (;;) {
    const page = await get(`${path}/events?after=${stream.after(topic) ?? 0}`);
    stream.take(topic, page.events);
    if (page.ended || page.events.length === 0) return;
  }
}

async function askWhileNotLive() {
  while (!ended) {
    if (!live) {
      await catchUp().then(
        () => { if (!live && !ended) say("every few seconds"); },
        (error) => say(error instanceof Problem ? error.detail : String(error)),
      );
    }
    await new Promise((done) => setTimeout(done, ASK_MS));
  }
  stream.close();
}

/** @param {HTMLButtonElement} button */
async function command(button) {
  const words = button.textContent;
  if (button.dataset.sure && button.dataset.asked === undefined) {
    button.dataset.asked = "";
    button.textContent = button.dataset.sure;
    setTimeout(() => {
      button.textContent = words;
      delete button.dataset.asked;
    }, ASK_MS);
    return;
  }
  const output = /** @type {HTMLElement} */ (document.querySelector("#commands output"));
  try {
    const said = await post(`${path}/${button.dataset.command}`);
    output.textContent = `${said.command} requested; it takes effect after this iteration`;
  } catch (error) {
    output.textContent = error instanceof Problem ? error.detail : String(error);
  }
}

const stream = new TrainingProgressWebSocket(`${api}/stream`, {
  onState: (state) => {
    live = state === "live";
    if (live && !ended) say(state);
  },
});

async function begin() {
  const log = document.getElementById("task-log");
  if (log instanceof HTMLDetailsElement) showTaskLog(log, () => ended);
  for (const button of document.querySelectorAll("#commands button")) {
    if (!(button instanceof HTMLButtonElement)) continue;
    button.addEventListener("click", (event) => {
      if (event.detail < 2) void command(button); // the second click of a double click confirms nothing
    });
  }
  const past = await get(`${path}/curves?points=${POINTS}&until=${after}`);
  curves.add(past.steps);
  resources.add(past.samples);
  if (ended) return say("");
  stream.subscribe(topic, Number(after), { onEvents: take, onRefused: say });
  await new Promise((done) => setTimeout(done, ASK_MS));
  await askWhileNotLive();
}

begin().catch((error) => say(error instanceof Problem ? error.detail : String(error)));
