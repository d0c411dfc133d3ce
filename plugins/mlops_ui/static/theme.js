// Airflow's own choice of colours: it keeps it where its pages, of which this one is a part, can read it.
"use strict";

function chooseTheme() {
  const chosen = localStorage.getItem("theme");
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = chosen === "dark" || chosen === "light" ? chosen : dark ? "dark" : "light";
}

chooseTheme();
addEventListener("storage", chooseTheme);
