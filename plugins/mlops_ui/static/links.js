// Links out of these pages (data-outside). Airflow shows the pages in a frame that may neither open windows nor leave
// its place, so there Airflow's own page, which has the same origin, opens the link.
"use strict";

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[data-outside]");
  if (!link || window.parent === window) return;
  event.preventDefault();
  const page = window.top.document;
  const outer = page.createElement("a");
  Object.assign(outer, { href: link.href, target: "_blank", rel: "noopener" });
  page.body.append(outer);
  outer.click();
  outer.remove();
});
