// Plots in the page's colours, by uPlot: lines over numbers or days, and bars over names. Pages load uPlot's own script
// and style sheet beside this one. A plot is as wide as its place, follows the theme, and says its numbers in words.

const HEIGHT = 220;
/** Milliseconds of a frame that may be spent on drawing before the rest waits for the next one. */
const FRAME_MS = 4;
export const LOW = 150;
/** Steps of an axis: of 1, 2 or 5 in a decimal place, which their labels can say. */
const STEPS = Array.from({ length: 31 }, (_, power) => [1, 2, 5].map((digit) => Number(`${digit}e${power - 15}`))).flat();
const DAYS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000].map((days) => days * 86_400);
const FONT = "12px system-ui, sans-serif";

/**
 * @typedef {object} Line
 * @property {string} name
 * @property {string} colour the name of a variable of the style sheet, e.g. `--valid`
 * @property {boolean} [filled]
 *
 * @typedef {object} Look
 * @property {string} title
 * @property {string} [across] what is on the horizontal axis
 * @property {boolean} [days] whether that is days, as seconds since 1970
 * @property {string[]} [names] of the places 0, 1, 2, ... on the horizontal axis
 * @property {(value: number) => string} [words] a value as it is told
 * @property {boolean} [bars]
 * @property {boolean} [zero] whether 0 is always on the vertical axis
 * @property {number} [height]
 */

/** @param {string} variable */
export function colour(variable) {
  return getComputedStyle(document.documentElement).getPropertyValue(variable).trim() || "gray";
}

/** @param {number} value */
export function figure(value) {
  return Math.abs(value) >= 1e5 || (value !== 0 && Math.abs(value) < 1e-4) ? value.toExponential(2) : String(Number(value.toPrecision(5)));
}

/**
 * Labels of an axis: as many decimals as its step has, so that no two are the same.
 * @param {number[]} values
 * @param {number} step
 */
export function labels(values, step) {
  const largest = Math.max(...values.map(Math.abs), 0);
  if (largest >= 1e6 || step < 1e-6) {
    const digits = Math.max(0, Math.round(Math.log10(largest / step)));
    return values.map((value) => value.toExponential(Math.min(digits, 12)));
  }
  const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return values.map((value) => (value === 0 ? 0 : value).toFixed(decimals));
}

/**
 * Put a plot into its part of a page: where the server has kept a place free, so that nothing moves, or else at the end.
 * @param {Element} part
 * @param {Plot} plot
 */
export function settle(part, plot) {
  const coming = part.querySelector("figure.coming");
  if (coming) coming.replaceWith(plot.element);
  else part.append(plot.element);
  part.querySelector(".empty")?.remove();
  Object.assign(plot.element, { plot });
}

/** @type {(() => void)[]} what is to be drawn */
const waiting = [];

/**
 * Draw in the next frame, or in a later one where that has drawn long enough: however many plots there are, the page goes
 * on answering.
 * @param {() => void} draw
 */
function drawSoon(draw) {
  if (waiting.push(draw) === 1) requestAnimationFrame(drawSome);
}

function drawSome() {
  const until = performance.now() + FRAME_MS;
  try {
    do waiting.shift()?.();
    while (waiting.length > 0 && performance.now() < until);
  } finally {
    if (waiting.length > 0) requestAnimationFrame(drawSome);
  }
}

/** A figure with its caption, which says each line's newest value, or the one under the pointer. */
export class Plot {
  /** @type {import("uplot") | undefined} */
  chart;
  /** @type {number | undefined} the place that is marked */
  best;
  /** @type {(number | null | undefined)[][]} */
  #data;
  #due = false;

  /**
   * @param {Look} look
   * @param {Line[]} lines
   */
  constructor(look, lines) {
    this.look = look;
    this.lines = lines;
    this.#data = [[], ...lines.map(() => [])];
    this.element = document.createElement("figure");
    this.caption = document.createElement("figcaption");
    this.place = document.createElement("div");
    this.place.className = look.height === LOW ? "drawn low" : "drawn";
    this.place.setAttribute("role", "img");
    this.element.append(this.caption, this.place);
    new ResizeObserver(() => this.#resize()).observe(this.place);
    new MutationObserver(() => this.chart?.redraw(false)).observe(document.documentElement, { attributeFilter: ["data-theme"] });
    this.#say(null);
  }

  /**
   * @param {(number | null | undefined)[][]} data places, and the values of each line: null is a gap, undefined nothing
   * @param {Line[]} [lines] where they are others than before
   */
  show(data, lines) {
    this.#data = data;
    if (lines !== undefined && lines.length !== this.lines.length) {
      this.lines = lines;
      this.chart?.destroy();
      this.chart = undefined;
    }
    if (this.#due) return;
    this.#due = true;
    drawSoon(() => {
      this.#due = false;
      this.#draw();
    });
  }

  #draw() {
    const width = this.place.clientWidth;
    if (width === 0 || this.#data[0].length === 0) return;
    // uPlot's types know no undefined, its lines do.
    const data = /** @type {any} */ (this.#data);
    if (this.chart === undefined) this.chart = new uPlot(this.#options(width), data, this.place);
    else this.chart.setData(data);
    this.#say(null);
  }

  #resize() {
    const width = this.place.clientWidth;
    if (this.chart === undefined) this.#draw();
    else if (width > 0 && width !== this.chart.width) this.chart.setSize({ width, height: this.chart.height });
  }

  /**
   * @param {number} width
   * @returns {import("uplot").Options}
   */
  #options(width) {
    const { across, days, names, bars, zero, height = HEIGHT } = this.look;
    const text = () => colour("--muted");
    const grid = { stroke: () => colour("--edge"), width: 1 };
    const label = across === undefined ? {} : { label: across, labelFont: FONT, labelSize: 20, labelGap: 0 };
    const named = names === undefined ? {} : { values: (/** @type {unknown} */ _, /** @type {number[]} */ at) => at.map((place) => names[place] ?? "") };
    const whole = days || names !== undefined ? {} : { incrs: STEPS.filter((step) => step >= 1) };
    const dated = days ? { values: (/** @type {unknown} */ _, /** @type {number[]} */ at) => at.map(day), incrs: DAYS } : {};
    return {
      width,
      height,
      padding: [16, 24, 0, 0],
      legend: { show: false },
      cursor: { y: false, points: { size: 6 }, drag: { setScale: false, x: false, y: false } },
      scales: { x: { time: days === true, ...(bars ? { range: (_, low, high) => [low - 0.6, high + 0.6] } : {}) }, y: zero ? { range: withZero } : {} },
      axes: [
        { stroke: text, font: FONT, grid: { show: false }, ticks: { ...grid, size: 4 }, size: 28, space: names ? 20 : days ? 90 : 60, ...label, ...named, ...dated, ...whole },
        { stroke: text, font: FONT, grid, ticks: { show: false }, size: widest, space: 28, incrs: STEPS, values: (_, at, __, ___, step) => labels(at, step) },
      ],
      series: [{}, ...this.lines.map((line) => this.#series(line))],
      hooks: { draw: [(chart) => this.#mark(chart)], setCursor: [(chart) => this.#say(chart.cursor.idx ?? null)] },
    };
  }

  /**
   * @param {Line} line
   * @returns {import("uplot").Series}
   */
  #series({ name, colour: variable, filled }) {
    const stroke = () => colour(variable);
    const bars = this.look.bars ? { paths: uPlot.paths.bars?.({ size: [0.7, 60] }), fill: stroke } : {};
    const fill = filled ? { fill: () => `${colour(variable)}40` } : {};
    return { label: name, stroke, width: this.look.bars ? 0 : 1.75, points: { show: false }, ...bars, ...fill };
  }

  /**
   * A line at the best place, with its number.
   * @param {import("uplot")} chart
   */
  #mark(chart) {
    const { left, top, width, height } = chart.bbox;
    const { min, max } = chart.scales.x;
    if (this.best === undefined || min === undefined || max === undefined || this.best < min || this.best > max) return;
    const x = chart.valToPos(this.best, "x", true);
    const { ctx } = chart;
    const ratio = devicePixelRatio;
    ctx.save();
    ctx.strokeStyle = ctx.fillStyle = colour("--good");
    ctx.lineWidth = ratio;
    ctx.setLineDash([4 * ratio, 3 * ratio]);
    ctx.beginPath();
    ctx.moveTo(x, top);
    ctx.lineTo(x, top + height);
    ctx.stroke();
    ctx.font = `${12 * ratio}px system-ui, sans-serif`;
    ctx.textAlign = x > left + width - 50 * ratio ? "right" : x < left + 50 * ratio ? "left" : "center";
    ctx.fillText(`best ${this.best}`, x, top - 4 * ratio);
    ctx.restore();
  }

  /**
   * The caption: each line's value at a place, or its newest one.
   * @param {number | null} at index of the place
   */
  #say(at) {
    const { title, words = figure, across = "", days, names } = this.look;
    const heading = document.createElement("strong");
    heading.textContent = title;
    const entries = this.lines.map(({ name, colour: variable }, number) => {
      const values = this.#data[number + 1] ?? [];
      const value = at === null ? (names === undefined ? values.findLast((each) => each !== undefined) : undefined) : values[at];
      const entry = document.createElement("span");
      entry.className = `key ${variable.replace("--", "")}`;
      entry.textContent = at === null && names !== undefined ? name : `${name} ${value === null || value === undefined ? "–" : words(value)}`;
      return entry;
    });
    this.caption.replaceChildren(heading, ...entries);
    const place = at === null ? undefined : this.#data[0][at];
    if (place !== undefined && place !== null) this.caption.append(` at ${names?.[place] ?? (days ? day(place) : `${across} ${place}`)}`);
    this.place.setAttribute("aria-label", `${title}: ${entries.map((entry) => entry.textContent).join(", ")}`);
  }
}

/** @param {number} seconds */
function day(seconds) {
  return new Date(1000 * seconds).toISOString().slice(0, 10);
}

/**
 * @param {unknown} _
 * @param {number} low
 * @param {number} high
 * @returns {[number, number]}
 */
function withZero(_, low, high) {
  const [least, most] = [Math.min(low ?? 0, 0), Math.max(high ?? 0, 0)];
  const margin = (most - least || 1) * 0.05;
  return [least < 0 ? least - margin : 0, most > 0 ? most + margin : 0];
}

/**
 * The width of the vertical axis, which is that of its longest label.
 * @param {import("uplot")} chart
 * @param {string[]} values
 */
function widest(chart, values) {
  if (!values) return 40;
  chart.ctx.save();
  chart.ctx.font = FONT;
  const width = Math.max(...values.map((word) => chart.ctx.measureText(word).width), 10);
  chart.ctx.restore();
  return Math.ceil(width) + 16;
}
