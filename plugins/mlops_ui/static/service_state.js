// Says whether the scoring service answers, in each <output data-service>. The page itself does not wait for it.

import { get } from "./api.js";

const EVERY_MS = 5000;

async function look() {
  const words = await get("deployments/service").then(
    (found) => (found.answers ? ["answers", "good"] : ["does not answer", "bad"]),
    () => ["not known", "wait"],
  );
  for (const place of document.querySelectorAll("[data-service]")) {
    if (place.textContent !== words[0]) place.textContent = words[0];
    place.className = words[1];
  }
}

async function keepLooking() {
  for (;;) {
    if (!document.hidden) await look();
    await new Promise((done) => setTimeout(done, EVERY_MS));
  }
}

void keepLooking();
