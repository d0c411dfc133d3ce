// Draws the plots of the page Monitoring, and counts the scoring service's answers, which may take a moment.

import { get, Problem } from "./api.js";

const HEIGHT = 200;
const COLOURS = ["--valid", "--test", "--good", "--bad", "--wait", "--train"];

/** @typedef {{label: string, values: (number | null)[]}} Line */

/** @param {string} name of a colour of the theme */
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/**
 * @param {string} id of the figure
 * @param {number[]} times in seconds since the epoch, ascending
 * @param {Line[]} lines
 * @param {number} digits of the values
 */
function draw(id, times, lines, digits) {
  const place = document.querySelector(`#${id} > div`);
  if (!(place instanceof HTMLElement)) return;
  if (!times.length) {
    place.textContent = "Nothing yet.";
    return;
  }
  const axis = { stroke: colour("--muted"), grid: { stroke: colour("--edge"), width: 1 }, ticks: { show: false } };
  const plot = new uPlot(
    {
      width: place.clientWidth,
      height: HEIGHT,
      axes: [axis, { ...axis, size: 60, values: (_, ticks) => ticks.map((value) => value.toFixed(digits)) }],
      series: [
        { label: "Day", value: (_, time) => (time ? new Date(time * 1000).toISOString().slice(0, 10) : "") },
        ...lines.map(({ label }, number) => ({
          label,
          stroke: colour(COLOURS[number % COLOURS.length]),
          width: 2,
          spanGaps: true,
          points: { show: times.length < 40, size: 5 },
          value: (/** @type {unknown} */ _, /** @type {number | null} */ value) => value?.toFixed(digits) ?? "–",
        })),
      ],
      scales: { x: { time: true } },
      tzDate: (time) => uPlot.tzDate(new Date(time * 1000), "UTC"),
    },
    [times, ...lines.map(({ values }) => values)],
    place,
  );
  new ResizeObserver(() => plot.setSize({ width: place.clientWidth, height: HEIGHT })).observe(place);
}

/** @param {string} day */
const seconds = (day) => Date.parse(day) / 1000;

/**
 * @param {{model_version: number, arm: string, days: {date: string, rank_ic: number | null}[]}[]} served
 */
function drawPerformance(served) {
  const days = [...new Set(served.flatMap((each) => each.days.map(({ date }) => date)))].sort();
  const lines = served.map((each) => {
    const known = new Map(each.days.map(({ date, rank_ic }) => [date, rank_ic]));
    let [sum, count] = [0, 0];
    const values = days.map((day) => {
      const value = known.get(day);
      if (value === null || value === undefined) return null;
      sum += value;
      count += 1;
      return sum / count;
    });
    return { label: `version ${each.model_version}, ${each.arm}`, values };
  });
  draw("rank_ic", days.map(seconds), lines, 3);
}

/**
 * @param {string} id
 * @param {{at: string, value: number}[]} samples
 * @param {string} label
 */
function drawSamples(id, samples, label) {
  draw(id, samples.map(({ at }) => seconds(at)), [{ label, values: samples.map(({ value }) => value) }], 0);
}

/** @param {string | number} text */
function cell(text) {
  const made = document.createElement("td");
  made.textContent = String(text);
  if (typeof text === "number") made.className = "amount";
  return made;
}

async function countAnswers() {
  const section = document.querySelector("#predictions");
  const [table, note, day] = ["table", ".empty", "small"].map((each) => section?.querySelector(each));
  if (!table || !note || !day) return;
  const { date, counts } = await get("monitoring/predictions");
  note.textContent = date ? "" : "The log has no answer about a day.";
  if (!date) return;
  day.textContent = `about ${date}, the newest day that a client asked for`;
  table.removeAttribute("hidden");
  const rows = counts.map((/** @type {Record<string, any>} */ each) => {
    const row = document.createElement("tr");
    const times = [each.p50_ms, each.p99_ms].map((time) => Number(time.toFixed(1)));
    row.append(...[`version ${each.model_version}`, each.slot, each.arm, each.key_name, each.answers, each.scores, ...times].map(cell));
    return row;
  });
  table.querySelector("tbody")?.replaceChildren(...rows);
}

/** @param {unknown} error */
const told = (error) => (error instanceof Problem ? error.detail : String(error));

async function start() {
  const [{ performance }, series] = await Promise.all([get("monitoring/performance"), get("monitoring/series")]);
  if (performance?.served.length) drawPerformance(performance.served);
  drawSamples("drift_columns", series.drift_columns, "columns");
  drawSamples("scored_instruments", series.scored_instruments, "instruments");
}

start().catch((error) => {
  for (const place of document.querySelectorAll("figure.plot > div")) place.textContent = told(error);
});
countAnswers().catch((error) => {
  const note = document.querySelector("#predictions .empty");
  if (note) note.textContent = told(error);
});
