// Draws the plots of the page Monitoring, and counts the scoring service's answers, which may take a moment.

import { get, Problem } from "./api.js";
import { figure, LOW, Plot, settle } from "./plot.js";

const COLOURS = ["--valid", "--test", "--good", "--bad", "--wait", "--train"];

/** @typedef {{name: string, values: (number | null)[]}} Values */

/**
 * @param {string} id of the part of the page
 * @param {string} title
 * @param {number[]} times in seconds since 1970, ascending
 * @param {Values[]} lines
 * @param {boolean} low whether it is a small plot
 */
function draw(id, title, times, lines, low) {
  const part = document.querySelector(`#${id}`);
  if (!part) return;
  if (times.length < 2) {
    const value = lines[0]?.values[0];
    const words = times.length && value !== null && value !== undefined ? `${figure(value)} on ${new Date(1000 * times[0]).toISOString().slice(0, 10)}` : "nothing yet";
    part.replaceChildren(Object.assign(document.createElement("p"), { className: "empty", textContent: `${title}: ${words}.` }));
    return;
  }
  const looks = lines.map(({ name }, number) => ({ name, colour: COLOURS[number % COLOURS.length] }));
  const plot = new Plot({ title, days: true, zero: true, height: low ? LOW : undefined, words: figure }, looks);
  settle(part, plot);
  plot.show([times, ...lines.map(({ values }) => values)]);
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
    return { name: `version ${each.model_version}, ${each.arm}`, values };
  });
  draw("rank_ic", "Mean rank IC so far", days.map(seconds), lines, false);
}

/** @param {{date: string, beyond: number}[]} reports the last ones first: of a day, the last one counts */
function drawDrift(reports) {
  /** @type {Map<string, number>} */
  const byDay = new Map();
  for (const { date, beyond } of reports) if (!byDay.has(date)) byDay.set(date, beyond);
  const days = [...byDay.keys()].sort();
  const values = days.map((date) => byDay.get(date) ?? null);
  draw("drift_columns", "Columns beyond the limit", days.map(seconds), [{ name: "newest", values }], true);
}

/** @param {{at: string, value: number}[]} samples */
function drawScored(samples) {
  const values = samples.map(({ value }) => value);
  const times = samples.map(({ at }) => seconds(at));
  draw("scored_instruments", "Instruments scored by the champion", times, [{ name: "newest", values }], true);
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
  const version = document.querySelector("#drift")?.getAttribute("data-version");
  const [{ performance }, series, drift] = await Promise.all([
    get("monitoring/performance"),
    get("monitoring/series"),
    version ? get(`monitoring/drift?size=200&version=${version}`) : { reports: [] },
  ]);
  if (performance?.served.length) drawPerformance(performance.served);
  drawDrift(drift.reports);
  drawScored(series.scored_instruments);
}

start().catch((error) => {
  for (const place of document.querySelectorAll("figure.coming figcaption")) place.textContent = told(error);
});
countAnswers().catch((error) => {
  const note = document.querySelector("#predictions .empty");
  if (note) note.textContent = told(error);
});
