// What is told of a training's progress: state, stage, iterations, time left, best iteration, newest metrics. The server
// writes it into the page, and this brings it up to date with each event (templates/progress.html has the same words).

import { figure } from "./plot.js";

/** @type {Record<string, string>} */
const STATES = { created: "queued", queued: "queued", stage: "running", restored: "running", iteration: "running", resumed: "running", paused: "paused" };
export const TERMINAL = ["finished", "failed", "cancelled"];

/**
 * @typedef {object} TrainingEvent
 * @property {number} sequence
 * @property {string} kind
 * @property {boolean} terminal
 * @property {string} at
 * @property {Record<string, any>} payload
 */

/**
 * The state of a training after an event; undefined where the event says nothing of it.
 * @param {TrainingEvent} event
 */
export function stateAfter({ kind }) {
  return TERMINAL.includes(kind) ? kind : STATES[kind];
}

/** @param {number} seconds */
export function duration(seconds) {
  const whole = Math.round(seconds);
  const [days, rest] = [Math.floor(whole / 86_400), whole % 86_400];
  /** @param {number} value */
  const two = (value) => String(value).padStart(2, "0");
  const clock = `${Math.floor(rest / 3600)}:${two(Math.floor(rest / 60) % 60)}:${two(rest % 60)}`;
  return days === 0 ? clock : `${days} day${days === 1 ? "" : "s"}, ${clock}`;
}

/** @param {string} name */
const spaced = (name) => name.replace(".", " ");
/** @param {number | null} value */
const shown = (value) => (value === null ? "–" : figure(value));

/**
 * @param {Record<string, any>} iteration payload of an event
 * @returns {string} how long it may take yet
 */
export function timeLeft({ eta_s: all, eta_stop_s: stop }) {
  if (stop !== null && (all === null || stop < all)) {
    return `${duration(stop)} left unless validation improves${all === null ? "" : `, ${duration(all)} at most`}`;
  }
  return all === null ? "" : `${duration(all)} left at most`;
}

/** A part of a page that tells of a training, with an element of the class for each of the things it tells. */
export class Progress {
  /** @type {TrainingEvent[]} */
  #newest = [];
  #due = false;

  /** @param {() => Element | null} find where it is told now: the server's words may replace the element */
  constructor(find) {
    this.find = find;
  }

  /** @param {TrainingEvent[]} events in order */
  take(events) {
    for (const event of events) this.#newest = [...this.#newest.filter(({ kind }) => kind !== event.kind), event];
    if (this.#due) return;
    this.#due = true;
    requestAnimationFrame(() => {
      this.#due = false;
      const place = this.find();
      if (place) this.#newest.forEach((event) => tell(place, event));
      this.#newest = [];
    });
  }
}

/**
 * @param {Element} place
 * @param {TrainingEvent} event
 */
function tell(place, event) {
  const state = stateAfter(event);
  if (state !== undefined) put(place, ".state", state)?.setAttribute("class", `state ${state}`);
  if (event.kind === "stage") put(place, ".stage", event.payload.stage);
  if (event.kind === "paused") put(place, ".outcome", "");
  if (event.kind === "queued") put(place, ".outcome", event.payload.reason ?? "");
  if (event.kind === "iteration") iterated(place, event.payload);
}

/**
 * @param {Element} place
 * @param {Record<string, any>} payload
 */
function iterated(place, payload) {
  const { iteration, total, percent, best, metrics } = payload;
  const bar = place.querySelector("progress");
  if (bar) Object.assign(bar, { hidden: false, value: percent });
  put(place, ".number", `${Math.floor(percent)}%, ${iteration} of ${total} at most`);
  put(place, ".outcome", timeLeft(payload));
  if (best) put(place, ".kept", `best so far: iteration ${best.iteration}, ${spaced(best.metric)} ${shown(best.value)}`);
  put(place, ".newest", `iteration ${iteration}:`);
  const entries = Object.entries(metrics ?? {}).map(([name, value]) => {
    const entry = document.createElement("span");
    entry.className = "metric";
    const number = document.createElement("b");
    number.textContent = value === null ? "–" : String(Number(value.toPrecision(4)));
    entry.append(`${spaced(name)} `, number);
    return entry;
  });
  place.querySelector(".metrics")?.replaceChildren(...entries);
}

/**
 * @param {Element} place
 * @param {string} selector
 * @param {string} words
 */
function put(place, selector, words) {
  const found = place.querySelector(selector);
  if (found && found.textContent !== words) found.textContent = words;
  return found;
}
