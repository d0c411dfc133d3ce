// uPlot is a script of its own (static/uPlot.iife.min.js), not a module; its types come from the package.
import type Plot from "uplot";

declare global {
  const uPlot: typeof Plot;
}
