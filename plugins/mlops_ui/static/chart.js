// A line chart in SVG: one line for each segment (train, valid, test) over the iterations.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const SIZE = { width: 440, height: 200, left: 52, right: 12, top: 12, bottom: 28 };
const MOST_POINTS = 800;

function svg(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

/** Round numbers between two others, about `count` of them. */
function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const found = [];
  for (let number = Math.ceil(low / step); number * step <= high; number++) found.push(Number((number * step).toPrecision(12)));
  return found;
}

function label(value) {
  return Math.abs(value) >= 1e5 || (value !== 0 && Math.abs(value) < 1e-4) ? value.toExponential(1) : String(Number(value.toPrecision(4)));
}

class Chart {
  /** @param {string} metric its name, e.g. `loss` */
  constructor(metric) {
    this.lines = new Map(); // segment -> [[iteration, value or null], ...], iterations ascending
    this.element = document.createElement("figure");
    this.caption = document.createElement("figcaption");
    this.drawing = svg("svg", { viewBox: `0 0 ${SIZE.width} ${SIZE.height}`, role: "img", "aria-label": metric });
    this.metric = metric;
    this.element.append(this.caption, this.drawing);
    this.drawing.addEventListener("pointermove", (event) => this.read(event));
    this.drawing.addEventListener("pointerleave", () => this.draw());
  }

  add(segment, iteration, value) {
    if (!this.lines.has(segment)) this.lines.set(segment, []);
    const line = this.lines.get(segment);
    // A run that went on from a checkpoint begins there.
    if (line.length === 0 || line.at(-1)[0] < iteration) line.push([iteration, value]);
  }

  draw(at) {
    const known = [...this.lines.values()].flat().filter(([, value]) => value !== null);
    this.drawing.replaceChildren();
    if (known.length === 0) return this.write(at);
    const first = known.reduce((least, [iteration]) => Math.min(least, iteration), Infinity);
    const last = known.reduce((most, [iteration]) => Math.max(most, iteration), first + 1);
    let low = known.reduce((least, [, value]) => Math.min(least, value), Infinity);
    let high = known.reduce((most, [, value]) => Math.max(most, value), -Infinity);
    const margin = (high - low || Math.abs(high) || 1) * 0.05;
    [low, high] = [low - margin, high + margin];
    this.x = (iteration) => SIZE.left + ((iteration - first) / (last - first)) * (SIZE.width - SIZE.left - SIZE.right);
    this.y = (value) => SIZE.top + ((high - value) / (high - low)) * (SIZE.height - SIZE.top - SIZE.bottom);
    this.iteration = (x) => Math.round(first + ((x - SIZE.left) / (SIZE.width - SIZE.left - SIZE.right)) * (last - first));
    this.axes(ticks(first, last, 6).filter(Number.isInteger), ticks(low, high, 6));
    for (const [segment, line] of this.lines) this.drawing.append(svg("path", { class: `line ${segment}`, d: this.path(line) }));
    if (at !== undefined) this.drawing.append(svg("line", { class: "cursor", x1: this.x(at), x2: this.x(at), y1: SIZE.top, y2: SIZE.height - SIZE.bottom }));
    this.write(at);
  }

  axes(across, up) {
    const [right, bottom] = [SIZE.width - SIZE.right, SIZE.height - SIZE.bottom];
    for (const value of up) {
      this.drawing.append(
        svg("line", { class: "grid", x1: SIZE.left, x2: right, y1: this.y(value), y2: this.y(value) }),
        svg("text", { x: SIZE.left - 8, y: this.y(value) + 4, "text-anchor": "end" }, label(value)),
      );
    }
    for (const value of across) this.drawing.append(svg("text", { x: this.x(value), y: bottom + 18, "text-anchor": "middle" }, value));
    this.drawing.append(svg("line", { class: "axis", x1: SIZE.left, x2: right, y1: bottom, y2: bottom }));
  }

  /** With a gap where the metric is undefined; of a long line every n-th point, and the last. */
  path(line) {
    const every = Math.ceil(line.length / MOST_POINTS);
    let pen = "M";
    let path = "";
    line.forEach(([iteration, value], number) => {
      if (number % every !== 0 && number !== line.length - 1) return;
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
    const x = ((event.clientX - box.left) / box.width) * SIZE.width;
    const iterations = [...this.lines.values()].flat().map(([iteration]) => iteration);
    this.draw(Math.min(Math.max(this.iteration(x), Math.min(iterations[0])), iterations.at(-1)));
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
      entry.textContent = `${segment} ${point && point[1] !== null ? label(point[1]) : "–"}`;
      this.caption.append(entry);
    }
    if (at !== undefined) this.caption.append(` at iteration ${at}`);
  }
}
