// A row's button fills in the form that releases it.

const form = document.querySelector("#release form");

document.addEventListener("click", (event) => {
  const button = event.target instanceof Element ? event.target.closest("[data-release]") : null;
  const row = button?.closest("tr");
  if (!(form instanceof HTMLFormElement) || !row) return;
  for (const name of ["rule", "instrument", "date"]) {
    const field = form.elements.namedItem(name);
    if (field instanceof HTMLInputElement) field.value = row.dataset[name] ?? "";
  }
  const reason = form.elements.namedItem("reason");
  if (reason instanceof HTMLInputElement) reason.focus();
});

export {};
