// A run's page: curves and events as they come, over a WebSocket. When it breaks, the missing events are fetched, and
// it is opened again a little later. Sequence numbers make sure that every event is shown once.
"use strict";

const PAUSE_MS = 3000;
const MOST_ROWS = 200;
const QUIET = new Set(["iteration", "resources"]);
const STATES = { created: "queued", queued: "queued", stage: "running", restored: "running", iteration: "running", resumed: "running", paused: "paused" };

const place = document.getElementById("curves");
const url = place.dataset.run;
const charts = new Map();
let newest = 0;
let ended = false;
let due = false;

function say(words) {
  document.getElementById("link").textContent = words;
}

function take(event) {
  if (event.sequence <= newest) return;
  newest = event.sequence;
  ended = event.terminal;
  if (event.kind === "iteration") plot(event.payload);
  if (!QUIET.has(event.kind)) list(event);
  if (STATES[event.kind]) offer(STATES[event.kind]);
  if (ended) document.getElementById("commands")?.remove();
}

/** Show the commands that a run in this state takes. */
function offer(state) {
  for (const button of document.querySelectorAll("#commands button")) button.hidden = !button.dataset.when.split(" ").includes(state);
}

function plot({ iteration, metrics, best }) {
  for (const [name, value] of Object.entries(metrics)) {
    const dot = name.indexOf(".");
    const metric = name.slice(dot + 1);
    if (!charts.has(metric)) {
      charts.set(metric, new Chart(metric));
      place.querySelector(".empty")?.remove();
      place.append(charts.get(metric).element);
    }
    charts.get(metric).add(name.slice(0, dot), iteration, value);
  }
  charts.forEach((chart) => { chart.best = best?.iteration; });
  if (!due) requestAnimationFrame(() => { due = false; charts.forEach((chart) => chart.draw()); });
  due = true;
}

function list({ sequence, at, kind, payload }) {
  const row = document.createElement("tr");
  const words = Object.entries(payload).filter(([, value]) => value !== null).map(([name, value]) => `${name} ${typeof value === "object" ? JSON.stringify(value) : value}`);
  for (const text of [sequence, at.slice(11, 19), kind, payload.explanation ?? words.join(", ")]) {
    row.insertCell().textContent = text;
  }
  const rows = document.getElementById("events");
  rows.prepend(row);
  if (rows.rows.length > MOST_ROWS) rows.lastElementChild.remove();
}

async function catchUp() {
  for (;;) {
    const answer = await fetch(`${url}/events?after=${newest}`);
    if (answer.status === 401 || answer.status === 403) return say("signed out: reload Airflow");
    if (!answer.ok) return say("the server does not answer");
    const page = await answer.json();
    page.events.forEach(take);
    if (page.ended || page.events.length === 0) return say("every few seconds");
  }
}

function connect() {
  const address = new URL(`${url}/stream?after=${newest}`, location.href);
  address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(address);
  socket.onopen = () => say("live");
  socket.onmessage = (message) => take(JSON.parse(message.data));
  socket.onclose = async () => {
    if (!ended) await catchUp().catch(() => say("the server does not answer"));
    if (ended) say("");
    else setTimeout(connect, PAUSE_MS);
  };
}

async function command(button, line) {
  if (button.dataset.sure && !button.dataset.asked) {
    button.dataset.asked = button.textContent;
    button.textContent = button.dataset.sure;
    setTimeout(() => { button.textContent = button.dataset.asked; delete button.dataset.asked; }, PAUSE_MS);
    return;
  }
  const answer = await fetch(`${line.dataset.url}/${button.dataset.command}`, { method: "POST" });
  const said = await answer.json();
  line.querySelector("output").textContent = answer.ok ? `${said.command} requested; it takes effect after this iteration` : said.detail;
}

const line = document.getElementById("commands");
for (const button of line?.querySelectorAll("button") ?? []) {
  button.addEventListener("click", () => command(button, line).catch(() => say("the server does not answer")));
}
connect();
