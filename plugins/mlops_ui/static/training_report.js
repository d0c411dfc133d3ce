// The plots of a training's report: its figures come from the API, those that are computed from its predictions later.

import { get, Problem } from "./api.js";
import { Curves } from "./curves.js";
import { figure, Plot, settle } from "./plot.js";

const MOST_BARS = 15;

/** @typedef {{ days: string[], values: Record<string, (number | null)[]> }} Series */
/** @typedef {{ name: string, share: number }} Share */

const run = location.pathname.split("/").at(-2) ?? "";
const path = `training/runs/${run}`;
/** @param {string} id */
const part = (id) => /** @type {HTMLElement} */ (document.getElementById(id));
/** @param {number} value */
const percent = (value) => `${(100 * value).toFixed(2)}%`;

/**
 * @param {HTMLElement} place
 * @param {import("./plot.js").Look} look
 * @param {import("./plot.js").Line[]} lines
 * @param {(number | null)[][]} data
 */
function add(place, look, lines, data) {
  const plot = new Plot(look, lines);
  settle(place, plot);
  plot.show(data);
}

/**
 * @param {Series} series
 * @param {string[]} names
 */
function byDay({ days, values }, names) {
  return [days.map((day) => Date.parse(day) / 1000), ...names.map((name) => values[name])];
}

/**
 * @param {HTMLElement} place
 * @param {string} words
 */
function empty(place, words) {
  const line = document.createElement("p");
  line.className = "empty";
  line.textContent = words;
  place.append(line);
}

/**
 * Bars with names, the largest first.
 * @param {string} title
 * @param {Share[]} shares
 * @param {string} unit
 */
function bars(title, shares, unit) {
  const block = document.createElement("figure");
  const caption = Object.assign(document.createElement("figcaption"), { textContent: "" });
  caption.append(Object.assign(document.createElement("strong"), { textContent: title }), unit);
  const table = document.createElement("table");
  table.className = "bars";
  const most = Math.max(...shares.map(({ share }) => Math.abs(share)), 1e-12);
  for (const { name, share } of shares.slice(0, MOST_BARS)) {
    const row = table.insertRow();
    row.insertCell().textContent = name;
    const meter = Object.assign(document.createElement("meter"), { min: 0, max: most, value: Math.abs(share) });
    meter.setAttribute("aria-label", `${title} of ${name}`);
    row.insertCell().append(meter);
    const amount = row.insertCell();
    amount.className = "amount";
    amount.textContent = `${(100 * share).toFixed(1)}%`;
  }
  block.append(caption, table);
  return block;
}

function features() {
  const place = part("features");
  const explained = JSON.parse(part("explained").textContent ?? "null");
  if (explained === null) return;
  place.append(bars("Shapley values", explained.features, `mean absolute contribution to the score, ${explained.method}`));
  place.append(bars("Factor groups", explained.groups, "share of all contributions"));
}

/** @param {any} report */
function draw(report) {
  const curves = new Curves(part("curves"));
  curves.add(report.steps);
  const { signal, account, importance, n_features: count } = report;
  if (signal.days.length > 0) {
    const lines = [{ name: "IC", colour: "--valid" }, { name: "rank IC", colour: "--test" }];
    add(part("signal"), { title: "Daily IC", days: true, zero: true, words: figure }, lines, byDay(signal, ["ic", "rank_ic"]));
    add(part("signal"), { title: "Running sum", days: true, zero: true }, lines, byDay(signal, ["ic_sum", "rank_ic_sum"]));
  }
  if (account.days.length > 0) {
    const lines = [{ name: "portfolio", colour: "--valid" }, { name: "universe", colour: "--train" }, { name: "excess", colour: "--good" }];
    add(part("account"), { title: "After costs", days: true, zero: true, words: percent }, lines, byDay(account, ["portfolio", "universe", "excess"]));
    add(part("account"), { title: "Drawdown", days: true, zero: true, words: percent }, [{ name: "excess", colour: "--bad", filled: true }], byDay(account, ["drawdown"]));
  } else empty(part("account"), "It is not evaluated yet.");
  if (importance.length > 0) part("features").prepend(bars("Importance", importance, `largest of ${count}, as the model's family measures it`));
  else empty(part("features"), "This model has no importance of its own.");
}

/** @param {any} report */
function drawSignal({ decay, groups, horizon }) {
  const lags = decay.map((/** @type {any} */ each) => each.lag);
  const means = decay.map((/** @type {any} */ each) => each.mean);
  add(part("signal"), { title: "Decay of the rank IC", across: "days later", names: lags.map(String), bars: true, zero: true }, [{ name: "mean rank IC", colour: "--test" }], [lags, means]);
  const places = groups.map((/** @type {any} */ each) => each.quantile - 1);
  const names = groups.map((/** @type {any} */ each) => String(each.quantile));
  add(part("signal"), { title: "Return by group", across: "group by score, highest last", names, bars: true, zero: true, words: (value) => `${value.toFixed(1)} bps` }, [{ name: `mean over ${horizon} day${horizon === 1 ? "" : "s"}`, colour: "--valid" }], [places, groups.map((/** @type {any} */ each) => each.mean_bps)]);
}

/** Nothing more is coming. */
function settled() {
  document.querySelectorAll("figure.coming").forEach((place) => place.remove());
}

/** @param {unknown} error */
function tell(error) {
  empty(part("signal"), error instanceof Problem ? error.detail : String(error));
}

features();
get(`${path}/report`).then(draw).then(() => get(`${path}/report/signal`)).then(drawSignal).catch(tell).finally(settled);
