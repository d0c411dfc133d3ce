// What a training uses over time: processor and memory, and those of the graphics card where there is one.

import { LOW, Plot, settle } from "./plot.js";

const MOST_SAMPLES = 1600;
const SHOWN = [
  { title: "processor", lines: [{ key: "cpu_percent", name: "CPU", colour: "--valid" }, { key: "gpu_percent", name: "GPU", colour: "--test" }], unit: "%" },
  { title: "memory", lines: [{ key: "rss_mb", name: "resident", colour: "--valid" }, { key: "gpu_memory_mb", name: "GPU", colour: "--test" }], unit: "MB" },
];

/** @typedef {{ at: string, used: Record<string, number> }} Sample */

export class Resources {
  /** @type {{ second: number, used: Record<string, number> }[]} */
  #samples = [];
  /** @type {Plot[]} */
  #plots = [];
  #began = 0;

  /** @param {HTMLElement} place */
  constructor(place) {
    this.place = place;
  }

  /** @param {Sample[]} samples in order */
  add(samples) {
    const known = samples.filter(({ used }) => SHOWN.some(({ lines }) => lines.some(({ key }) => key in used)));
    if (known.length === 0) return;
    if (this.#samples.length === 0) this.#began = Date.parse(known[0].at);
    this.#samples.push(...known.map(({ at, used }) => ({ second: Math.round((Date.parse(at) - this.#began) / 1000), used })));
    while (this.#samples.length > MOST_SAMPLES) this.#samples = this.#samples.filter((_, place) => place % 2 === 0);
    this.#show();
  }

  #show() {
    if (this.#plots.length === 0) {
      this.#plots = SHOWN.map(({ title, unit }) => new Plot({ title, across: "second", zero: true, height: LOW, words: (value) => `${Math.round(value)} ${unit}` }, []));
      for (const plot of this.#plots) settle(this.place, plot);
    }
    const seconds = this.#samples.map(({ second }) => second);
    SHOWN.forEach(({ lines }, number) => {
      const used = lines.filter(({ key }) => this.#samples.some((sample) => key in sample.used));
      this.#plots[number].show([seconds, ...used.map(({ key }) => this.#samples.map((sample) => sample.used[key]))], used);
    });
  }
}
