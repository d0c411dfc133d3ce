// The form that registers an experiment. Its arms, metrics and days are several fields each, which are sent as the parts
// of a design: hidden fields with JSON (data-json, static/forms.js) follow what is typed.

/**
 * @param {ParentNode} place
 * @returns {Record<string, string>} what is typed, by part
 */
function partsOf(place) {
  /** @type {Record<string, string>} */
  const parts = {};
  for (const field of place.querySelectorAll("[data-part]")) {
    if (field instanceof HTMLInputElement || field instanceof HTMLSelectElement) parts[field.dataset.part ?? ""] = field.value.trim();
  }
  return parts;
}

/** @param {Element} place */
function metricOf(place) {
  const { name, source, better, smallest_effect } = partsOf(place);
  return { name, source, better, smallest_effect: Number(smallest_effect) };
}

/**
 * @param {HTMLFormElement} form
 * @returns {Record<string, unknown>} the parts of the design; undefined: left out
 */
function designOf(form) {
  const arms = [...form.querySelectorAll("[data-arm]")].map(partsOf).filter((each) => each.name);
  const versions = arms.filter((each) => each.version);
  const [primary, ...guards] = [...form.querySelectorAll("[data-metric]")].map(metricOf);
  const days = [...form.querySelectorAll("[data-switchback]")].flatMap((field) =>
    field instanceof HTMLInputElement && field.value ? [[field.dataset.switchback ?? "", Number(field.value)]] : [],
  );
  return {
    arms: Object.fromEntries(arms.map((each) => [each.name, each.share])),
    models: versions.length ? Object.fromEntries(versions.map((each) => [each.name, Number(each.version)])) : undefined,
    primary,
    guards: guards.filter((each) => each.name),
    switchback: days.length ? Object.fromEntries(days) : undefined,
  };
}

/** @param {HTMLFormElement} form */
function follow(form) {
  for (const [name, value] of Object.entries(designOf(form))) {
    let field = form.querySelector(`input[type=hidden][name=${name}]`);
    if (!(field instanceof HTMLInputElement)) {
      field = Object.assign(document.createElement("input"), { type: "hidden", name });
      field.setAttribute("data-json", "");
      form.append(field);
    }
    /** @type {HTMLInputElement} */ (field).value = value === undefined ? "" : JSON.stringify(value);
  }
}

for (const form of document.querySelectorAll("form[data-experiment]")) {
  if (!(form instanceof HTMLFormElement)) continue;
  form.addEventListener("input", () => follow(form));
  follow(form);
}

export {};
