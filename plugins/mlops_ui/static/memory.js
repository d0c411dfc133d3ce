// Fills in the memory estimates. They are computed when somebody opens the page, which takes some seconds at first.
"use strict";

async function estimate(place) {
  const answer = await fetch(place.dataset.memory);
  const found = await answer.json();
  if (!answer.ok) {
    place.textContent = `unknown: ${found.detail}`;
  } else {
    const { bytes } = found.memory;
    place.textContent = bytes < 1e9 ? `${Math.ceil(bytes / 1e6)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
  }
}

for (const place of document.querySelectorAll("[data-memory]")) {
  estimate(place).catch(() => { place.textContent = "unknown: the server does not answer"; });
}
