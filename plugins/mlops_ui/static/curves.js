// The curves of a training: one plot for each metric, with a line for each segment (train, valid, test), the best
// iteration marked. However long a training is, a plot keeps so many points: every second one is dropped at the limit.

import { Plot, settle } from "./plot.js";

export const MOST_POINTS = 1200;
const SEGMENTS = ["train", "valid", "test"];
const LINE = { train: "--train", valid: "--valid", test: "--test" };

/**
 * @typedef {object} Step
 * @property {number} iteration
 * @property {number | null} [best]
 * @property {Record<string, number | null>} metrics
 */

/** The plot of one metric. */
class Curve {
  /** @type {number[]} */
  iterations = [];
  /** @type {Map<string, (number | null | undefined)[]>} */
  values = new Map();

  /** @param {string} metric */
  constructor(metric) {
    this.plot = new Plot({ title: metric, across: "iteration" }, []);
  }

  /**
   * @param {number} iteration larger than those before it; others are known, or are computed again after a checkpoint
   * @param {[string, number | null][]} found segments and values
   */
  add(iteration, found) {
    if (iteration <= (this.iterations.at(-1) ?? -1)) return;
    this.iterations.push(iteration);
    for (const [segment] of found) {
      if (!this.values.has(segment)) this.values.set(segment, new Array(this.iterations.length - 1).fill(undefined));
    }
    for (const [segment, line] of this.values) line.push(found.find(([name]) => name === segment)?.[1]);
    if (this.iterations.length > MOST_POINTS) this.#thin();
  }

  #thin() {
    /** @param {number} place */
    const stays = (place) => place % 2 === 0 || this.iterations[place] === this.plot.best;
    /** @type {<T>(list: T[]) => T[]} */
    const thinned = (list) => list.filter((_, place) => stays(place));
    const values = [...this.values].map(([segment, line]) => /** @type {const} */ ([segment, thinned(line)]));
    const iterations = thinned(this.iterations);
    this.values = new Map(values);
    this.iterations = iterations;
  }

  show() {
    const segments = [...this.values.keys()].sort((one, other) => SEGMENTS.indexOf(one) - SEGMENTS.indexOf(other));
    const lines = segments.map((name) => ({ name, colour: LINE[/** @type {keyof typeof LINE} */ (name)] ?? "--muted" }));
    this.plot.show([this.iterations, ...segments.map((name) => this.values.get(name) ?? [])], lines);
  }
}

/** All plots of a training, in one place of a page. */
export class Curves {
  /** @type {Map<string, Curve>} */
  #curves = new Map();

  /** @param {HTMLElement} place */
  constructor(place) {
    this.place = place;
  }

  /** @param {Step[]} steps in order */
  add(steps) {
    for (const { iteration, best, metrics } of steps) {
      /** @type {Map<string, [string, number | null][]>} */
      const found = new Map();
      for (const [name, value] of Object.entries(metrics)) {
        const dot = name.indexOf(".");
        const metric = name.slice(dot + 1);
        found.set(metric, [...(found.get(metric) ?? []), [name.slice(0, dot), value]]);
      }
      for (const [metric, values] of found) this.#curve(metric).add(iteration, values);
      if (best !== undefined && best !== null) this.#curves.forEach((curve) => { curve.plot.best = best; });
    }
    if (steps.length > 0) this.#curves.forEach((curve) => curve.show());
  }

  /** @param {string} metric */
  #curve(metric) {
    let curve = this.#curves.get(metric);
    if (curve === undefined) {
      curve = new Curve(metric);
      this.#curves.set(metric, curve);
      settle(this.place, curve.plot);
    }
    return curve;
  }
}
