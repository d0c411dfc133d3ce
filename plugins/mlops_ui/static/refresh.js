// Keeps what the server renders up to date: each element with data-live="<milliseconds>" is replaced by its
// current version. One that has data-ended does not change any more. What a script fills in (data-kept, with an id) stays.

/** @param {HTMLElement[]} places */
async function refresh(places) {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page.querySelectorAll("[data-live]");
  places.forEach((place, number) => {
    const now = fresh[number];
    for (const kept of place.querySelectorAll("[data-kept]")) now?.querySelector(`#${kept.id}`)?.replaceWith(kept.cloneNode(true));
    if (now && now.innerHTML !== place.innerHTML) place.replaceChildren(...now.childNodes);
    if (now?.hasAttribute("data-ended")) place.setAttribute("data-ended", "");
  });
}

async function keepFresh() {
  /** @type {HTMLElement[]} */
  const places = [...document.querySelectorAll("[data-live]")].filter((each) => each instanceof HTMLElement);
  while (places.some((place) => !place.hasAttribute("data-ended"))) {
    await new Promise((done) => setTimeout(done, Number(places[0].dataset.live)));
    if (!document.hidden) await refresh(places).catch(() => {});
  }
}

keepFresh();

export {};
