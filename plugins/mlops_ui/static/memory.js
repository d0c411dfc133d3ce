// Fills in the memory estimates. They are computed when somebody opens the page, which takes some seconds at first.

import { get, Problem } from "./api.js";

/** @param {HTMLElement} place */
async function estimate(place) {
  try {
    const { bytes } = (await get(place.dataset.memory ?? "")).memory;
    place.textContent = bytes < 1e9 ? `${Math.ceil(bytes / 1e6)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
  } catch (error) {
    place.textContent = `unknown: ${error instanceof Problem ? error.detail : error}`;
  }
}

for (const place of document.querySelectorAll("[data-memory]")) {
  if (place instanceof HTMLElement) void estimate(place);
}
