// The form of a new training: which models, with which hyper-parameters. What differs from its default is sent, as the
// lines that the DAG's own form takes; it is checked while it is typed, and memory and time are told.

import { post, Problem } from "./api.js";
import { duration } from "./progress.js";

const PAUSE_MS = 300;

const form = document.getElementById("train");

/** @typedef {HTMLInputElement | HTMLSelectElement} Widget */

/**
 * @param {Widget} widget
 * @returns {string | null} its value as JSON; null where it is the default
 */
function changed(widget) {
  const { default: usual = "null", text } = widget.dataset;
  if (text === undefined) return widget.value === "" || sameJson(widget.value, usual) ? null : widget.value;
  const value = asJson(widget.value, usual);
  return sameJson(value, usual) ? null : value;
}

/**
 * @param {string} one
 * @param {string} other
 */
function sameJson(one, other) {
  try {
    return JSON.stringify(JSON.parse(one)) === JSON.stringify(JSON.parse(other));
  } catch {
    return one === other;
  }
}

/**
 * What is typed into a field for text, as JSON: a text where the default is one or where it is nothing else.
 * @param {string} typed
 * @param {string} usual
 */
function asJson(typed, usual) {
  try {
    if (typeof JSON.parse(usual) !== "string") return JSON.stringify(JSON.parse(typed));
  } catch {
    // not JSON: a word without quotes
  }
  return JSON.stringify(typed);
}

/** @param {ParentNode} place */
const widgets = (place) => /** @type {Widget[]} */ ([...place.querySelectorAll("[data-widget]")]);

/** @param {Element} card */
function lines(card) {
  return widgets(card).flatMap((widget) => {
    const value = changed(widget);
    return value === null ? [] : [`${widget.id}=${value}`];
  });
}

function chosen() {
  return [...document.querySelectorAll(".model")].filter((card) => card.querySelector("[data-choose]:checked"));
}

/**
 * @param {string} name
 * @param {string} text
 */
function put(name, text) {
  const field = form?.querySelector(`textarea[name="${name}"]`);
  if (field instanceof HTMLTextAreaElement) field.value = text;
}

/** @param {string} words */
function complain(words) {
  for (const place of document.querySelectorAll("[data-problem]")) {
    const id = /** @type {HTMLElement} */ (place).dataset.problem ?? "";
    const isIt = words.startsWith(`hyperparameters.${id}:`);
    place.textContent = isIt ? words.slice(`hyperparameters.${id}: `.length) : "";
    place.toggleAttribute("hidden", !isIt);
    document.getElementById(id)?.setAttribute("aria-invalid", String(isIt));
    if (isIt) place.closest("details")?.setAttribute("open", "");
  }
  const general = /** @type {HTMLElement} */ (document.getElementById("invalid"));
  general.textContent = words;
  form?.querySelectorAll("button.main").forEach((button) => button.toggleAttribute("disabled", words !== ""));
}

/** Write what is chosen into the fields that are sent: at once, since the form may be sent before it is checked. */
function gather() {
  const cards = chosen();
  put("models", cards.map((card) => /** @type {HTMLElement} */ (card).dataset.model ?? "").join("\n"));
  const all = cards.flatMap(lines).join("\n");
  put("hyperparameters", all);
  return { cards, all };
}

let asked = 0;

async function check() {
  const { cards, all } = gather();
  const number = ++asked;
  if (cards.length === 0) return complain("Choose a model.");
  const found = await post("overrides", { hyperparameters: all }).then(() => "", (error) => (error instanceof Problem ? error.detail : String(error)));
  if (number !== asked) return;
  complain(found);
  if (found === "") await Promise.all(cards.map((card) => estimate(/** @type {HTMLElement} */ (card), number)));
}

/**
 * @param {HTMLElement} card
 * @param {number} number of the check: a later one has overtaken it
 */
async function estimate(card, number) {
  const place = /** @type {HTMLElement} */ (card.querySelector("[data-estimate]"));
  const set = form?.querySelector("select[name=feature_set]");
  const feature_set = set instanceof HTMLSelectElement ? set.value : undefined;
  const about = { model: card.dataset.model, hyperparameters: lines(card).join("\n"), feature_set };
  const words = await post("training/estimate", about).then(told, (error) => `an unknown amount of memory: ${error instanceof Problem ? error.detail : error}`);
  if (number === asked) place.textContent = words;
}

/** @param {any} found */
function told({ memory_mb: memory, rows, features, seconds }) {
  const size = memory < 1000 ? `${Math.ceil(memory)} MB` : `${(memory / 1000).toFixed(1)} GB`;
  const time = seconds === null
    ? "how long it takes is not known, none has finished yet"
    : `${duration(seconds.median)} by the last ${seconds.trainings} of its trainings, ${duration(seconds.least)} to ${duration(seconds.most)}`;
  return `${size} of memory at most, for ${rows.toLocaleString("en")} rows of ${features} features; ${time}`;
}

/**
 * @param {string} model
 * @param {Record<string, unknown>} values
 */
function suggest(model, values) {
  for (const card of document.querySelectorAll(".model")) {
    const is = /** @type {HTMLElement} */ (card).dataset.model === model;
    const choice = card.querySelector("[data-choose]");
    if (choice instanceof HTMLInputElement) choice.checked = is;
    if (!is) continue;
    for (const widget of widgets(card)) {
      const value = values[widget.id.slice(model.length + 1)];
      if (value !== undefined) widget.value = widget.dataset.text !== undefined && typeof value === "string" ? value : JSON.stringify(value);
    }
    card.scrollIntoView({ block: "center" });
  }
  open();
}

/** Show the hyper-parameters of what is chosen. */
function open() {
  const cards = chosen();
  for (const card of document.querySelectorAll(".model")) {
    card.querySelector(".parameters")?.toggleAttribute("hidden", !cards.includes(card));
    // A hidden field that is invalid would keep the form from being sent, without a word.
    for (const widget of widgets(card)) widget.disabled = !cards.includes(card);
  }
  void check();
}

/** @type {number | undefined} */
let timer;

form?.addEventListener("input", (event) => {
  if (event.target instanceof HTMLInputElement && event.target.dataset.choose !== undefined) return open();
  gather();
  clearTimeout(timer);
  timer = setTimeout(() => void check(), PAUSE_MS);
});
for (const button of document.querySelectorAll("[data-suggests]")) {
  const { suggests = "", values = "{}" } = /** @type {HTMLElement} */ (button).dataset;
  button.addEventListener("click", () => suggest(suggests, JSON.parse(values)));
}
if (form) open();
