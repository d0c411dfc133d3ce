// Follows Airflow's choice of colours, which it stores where its pages, and so this one, can read it. Not a module: it
// runs before anything is painted.
"use strict";

function chooseTheme() {
  const chosen = localStorage.getItem("theme");
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = chosen === "dark" || chosen === "light" ? chosen : dark ? "dark" : "light";
}

chooseTheme();
addEventListener("storage", chooseTheme);
