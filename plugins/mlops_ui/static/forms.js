// Forms that ask the API for something: <form data-post="deployments/rollback">. Its named fields are sent as JSON, and
// what comes of it is told in its <output>: an error, a link to the DAG run that was started, or the form's data-done.
// A button with data-sure asks once more. The second click of a double click neither confirms nor sends again, and a
// form whose request is under way sends no other one. With data-then="reload" the page is loaded again afterwards.
//
// Their method is "dialog", with which a browser sends nothing while this script is not there yet.
//
// A field is sent as its type says: a number, a truth value (checkbox), a text, the lines of a text (data-lines), or
// JSON (data-json). An empty field that is not required is not sent.

import { airflow, post, Problem } from "./api.js";

const PAUSE_MS = 4000;

/** @typedef {HTMLInputElement | HTMLSelectElement | HTMLTextAreaElement} Field */

/**
 * @param {Field} field
 * @returns {unknown} undefined where it is not sent
 */
function valueOf(field) {
  if (field instanceof HTMLInputElement && field.type === "checkbox") return field.checked;
  if (field.value === "" && !field.required) return undefined;
  if (field.dataset.lines !== undefined) return field.value.split("\n").map((line) => line.trim()).filter(Boolean);
  if (field.dataset.json !== undefined) return JSON.parse(field.value);
  return field instanceof HTMLInputElement && field.type === "number" ? Number(field.value) : field.value;
}

/**
 * @param {HTMLFormElement} form
 * @returns {Record<string, unknown>}
 */
export function contentOf(form) {
  /** @type {Record<string, unknown>} */
  const content = {};
  for (const field of form.elements) {
    if (!("name" in field) || !field.name || field instanceof HTMLButtonElement) continue;
    const value = valueOf(/** @type {Field} */ (field));
    if (value !== undefined) content[String(field.name)] = value;
  }
  return content;
}

/**
 * @param {HTMLFormElement} form
 * @param {string} words
 * @param {string} kind `good` or `bad`
 * @param {{page: string, text: string}} [link]
 */
function tell(form, words, kind, link) {
  const place = form.querySelector("output");
  if (!place) return;
  place.className = kind;
  place.replaceChildren(words);
  if (link) {
    const anchor = Object.assign(document.createElement("a"), { href: airflow + link.page, textContent: link.text });
    anchor.setAttribute("data-outside", "");
    place.append(" ", anchor);
  }
}

/**
 * @param {HTMLElement | null} button
 * @returns {boolean} whether the person has confirmed
 */
function isSure(button) {
  if (!button?.dataset.sure || button.dataset.asked !== undefined) return true;
  const words = button.textContent ?? "";
  button.dataset.asked = "";
  button.textContent = button.dataset.sure;
  setTimeout(() => {
    button.textContent = words;
    delete button.dataset.asked;
  }, PAUSE_MS);
  return false;
}

/** @param {HTMLFormElement} form */
async function send(form) {
  if (form.dataset.busy !== undefined) return;
  form.dataset.busy = "";
  tell(form, "…", "busy");
  try {
    const answer = await post(form.dataset.post ?? "", contentOf(form));
    const started = typeof answer.dag_id === "string" && typeof answer.page === "string";
    if (started) {
      const waits = answer.paused ? ` The DAG ${answer.dag_id} is paused: unpause it, and the run begins.` : "";
      tell(form, `Started.${waits}`, "good", { page: answer.page, text: `${answer.dag_id} ${answer.run_id}` });
    } else tell(form, form.dataset.done ?? "Done.", "good");
    form.dispatchEvent(new CustomEvent("answered", { detail: answer, bubbles: true }));
    if (form.dataset.then === "reload") location.reload();
  } catch (error) {
    const told = error instanceof Problem ? error.detail : error instanceof SyntaxError ? `not JSON: ${error.message}` : String(error);
    tell(form, told, "bad");
  } finally {
    delete form.dataset.busy;
  }
}

document.addEventListener("click", (event) => {
  if (event.detail > 1 && event.target instanceof Element && event.target.closest("form[data-post] button")) event.preventDefault();
});

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!(form instanceof HTMLFormElement) || form.dataset.post === undefined) return;
  event.preventDefault();
  if (isSure(event.submitter)) void send(form);
});
