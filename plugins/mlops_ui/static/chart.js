// A line chart in SVG: one line for each segment (train, valid, test) over the iterations, the best iteration marked.
// It is drawn at its size in pixels, so that its text keeps its size on a narrow screen.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 220;
const EDGE = { right: 14, top: 18, bottom: 40 };
const LEAST_WIDTH = 240;
const DIGIT = 7; // width in pixels, in the axes' font
const MOST_POINTS = 800;

function svg(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

/** Round numbers between two others, about `count` of them, and the step between them. */
function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const values = [];
  for (let number = Math.ceil(low / step); number * step <= high; number++) values.push(Number((number * step).toPrecision(12)));
  return { values, step };
}

/** Labels of an axis: as many decimals as its step has, so that no two are the same. */
function labels({ values, step }) {
  const largest = Math.max(...values.map(Math.abs), 0);
  if (largest >= 1e6 || step < 1e-6) {
    const digits = Math.max(0, Math.round(Math.log10(largest / step)));
    return values.map((value) => value.toExponential(Math.min(digits, 12)));
  }
  const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return values.map((value) => (value === 0 ? 0 : value).toFixed(decimals));
}

function number(value) {
  return Math.abs(value) >= 1e5 || (value !== 0 && Math.abs(value) < 1e-4) ? value.toExponential(2) : String(Number(value.toPrecision(5)));
}

class Chart {
  /** @param {string} metric its name, e.g. `loss` */
  constructor(metric) {
    this.lines = new Map(); // segment -> [[iteration, value or null], ...], iterations ascending
    this.best = undefined; // iteration
    this.element = document.createElement("figure");
    this.caption = document.createElement("figcaption");
    this.drawing = svg("svg", { role: "img", "aria-label": `${metric} by iteration` });
    this.metric = metric;
    this.element.append(this.caption, this.drawing);
    this.drawing.addEventListener("pointermove", (event) => this.read(event));
    this.drawing.addEventListener("pointerleave", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(this.element);
  }

  add(segment, iteration, value) {
    if (!this.lines.has(segment)) this.lines.set(segment, []);
    const line = this.lines.get(segment);
    // A run that was resumed from a checkpoint begins there.
    if (line.length === 0 || line.at(-1)[0] < iteration) line.push([iteration, value]);
  }

  draw(at) {
    const known = [...this.lines.values()].flat().filter(([, value]) => value !== null);
    this.drawing.replaceChildren();
    const width = Math.max(LEAST_WIDTH, this.drawing.clientWidth || LEAST_WIDTH);
    this.drawing.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    if (known.length === 0) return this.write(at);
    const first = known.reduce((least, [iteration]) => Math.min(least, iteration), Infinity);
    const last = known.reduce((most, [iteration]) => Math.max(most, iteration), first + 1);
    let low = known.reduce((least, [, value]) => Math.min(least, value), Infinity);
    let high = known.reduce((most, [, value]) => Math.max(most, value), -Infinity);
    const margin = (high - low || Math.abs(high) || 1) * 0.05;
    [low, high] = [low - margin, high + margin];
    const up = ticks(low, high, 7);
    const said = labels(up);
    const left = 14 + DIGIT * Math.max(...said.map((word) => word.length));
    const [right, bottom] = [width - EDGE.right, HEIGHT - EDGE.bottom];
    this.x = (iteration) => left + ((iteration - first) / (last - first)) * (right - left);
    this.y = (value) => EDGE.top + ((high - value) / (high - low)) * (bottom - EDGE.top);
    this.iteration = (x) => Math.round(first + ((x - left) / (right - left)) * (last - first));
    up.values.forEach((value, place) => {
      this.drawing.append(
        svg("line", { class: "grid", x1: left, x2: right, y1: this.y(value), y2: this.y(value) }),
        svg("text", { class: "up", x: left - 8, y: this.y(value) + 4, "text-anchor": "end" }, said[place]),
      );
    });
    for (const value of ticks(first, last, Math.min(6, (right - left) / 50)).values.filter(Number.isInteger)) {
      this.drawing.append(svg("text", { class: "across", x: this.x(value), y: bottom + 17, "text-anchor": "middle" }, value));
    }
    this.drawing.append(
      svg("line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom }),
      svg("text", { class: "title", x: (left + right) / 2, y: HEIGHT - 5, "text-anchor": "middle" }, "iteration"),
    );
    this.mark({ first, last, left, right, bottom });
    for (const [segment, line] of this.lines) this.drawing.append(svg("path", { class: `line ${segment}`, d: this.path(line) }));
    if (at !== undefined) this.drawing.append(svg("line", { class: "cursor", x1: this.x(at), x2: this.x(at), y1: EDGE.top, y2: bottom }));
    this.write(at);
  }

  /** The best iteration: a line with its number, and a dot on the validation's line. */
  mark({ first, last, left, right, bottom }) {
    if (this.best === undefined || this.best < first || this.best > last) return;
    const x = this.x(this.best);
    const anchor = x > right - 50 ? "end" : x < left + 50 ? "start" : "middle";
    this.drawing.append(
      svg("line", { class: "best", x1: x, x2: x, y1: EDGE.top, y2: bottom }),
      svg("text", { class: "best", x, y: 12, "text-anchor": anchor }, `best ${this.best}`),
    );
    const point = this.lines.get("valid")?.find(([iteration]) => iteration === this.best);
    if (point && point[1] !== null) this.drawing.append(svg("circle", { class: "best", cx: x, cy: this.y(point[1]), r: 4 }));
  }

  /** With a gap where the metric is undefined; of a long line every n-th point, and the last. */
  path(line) {
    const every = Math.ceil(line.length / MOST_POINTS);
    let pen = "M";
    let path = "";
    line.forEach(([iteration, value], place) => {
      if (place % every !== 0 && place !== line.length - 1) return;
      if (value === null) {
        pen = "M";
      } else {
        path += `${pen}${this.x(iteration).toFixed(1)},${this.y(value).toFixed(1)}`;
        pen = "L";
      }
    });
    return path;
  }

  read(event) {
    if (!this.iteration) return;
    const box = this.drawing.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * this.drawing.viewBox.baseVal.width;
    const iterations = [...this.lines.values()].flat().map(([iteration]) => iteration);
    const [first, last] = iterations.reduce(([least, most], each) => [Math.min(least, each), Math.max(most, each)], [Infinity, 0]);
    this.draw(Math.min(Math.max(this.iteration(x), first), last));
  }

  /** The caption: each segment's value at an iteration, or its newest one. */
  write(at) {
    const words = document.createElement("strong");
    words.textContent = this.metric;
    this.caption.replaceChildren(words);
    for (const [segment, line] of this.lines) {
      const point = at === undefined ? line.at(-1) : line.findLast(([iteration]) => iteration <= at);
      const entry = document.createElement("span");
      entry.className = `key ${segment}`;
      entry.textContent = `${segment} ${point && point[1] !== null ? number(point[1]) : "–"}`;
      this.caption.append(entry);
    }
    if (at !== undefined) this.caption.append(` at iteration ${at}`);
  }
}
