// Links out of these pages (data-outside) and downloads (download). Airflow shows the pages in a frame that may neither
// open windows, nor leave its place, nor download, so there Airflow's own page, which has the same origin, opens the link.

document.addEventListener("click", (event) => {
  const link = event.target instanceof Element ? event.target.closest("a[data-outside], a[download]") : null;
  if (!(link instanceof HTMLAnchorElement) || window.parent === window || !window.top) return;
  event.preventDefault();
  const page = window.top.document;
  const outer = page.createElement("a");
  outer.href = link.href;
  if (link.hasAttribute("download")) outer.download = link.download;
  else Object.assign(outer, { target: "_blank", rel: "noopener" });
  page.body.append(outer);
  outer.click();
  outer.remove();
});

export {};
