// The end of a training's own log, which its task has in Airflow: asked of Airflow's API, with the cookie of its pages,
// while somebody looks at it.

import { airflow } from "./api.js";

const TASK = /(^|\.)train_model$/;
const MOST_LINES = 200;
const ASK_MS = 3000;

/**
 * @typedef {{ task_id: string, map_index: number, try_number: number, rendered_map_index: string | null, start_date: string | null }} TaskInstance
 * @typedef {{ timestamp?: string | null, level?: string, event: string }} Line
 */

/** @param {string} path */
async function ask(path) {
  const answer = await fetch(`${airflow}/api/v2/${path}`, { headers: { Accept: "application/json" } });
  if (!answer.ok) throw new Error(answer.status === 403 ? "you may not see logs of tasks" : `Airflow answers ${answer.status}`);
  return answer.json();
}

/**
 * The task that trains a model in a DAG run: mapped ones are named after their models.
 * @param {TaskInstance[]} tasks
 * @param {string} model
 */
export function taskOf(tasks, model) {
  const training = tasks.filter(({ task_id }) => TASK.test(task_id));
  return training.find(({ rendered_map_index: name }) => name === model) ?? (training.length === 1 ? training[0] : undefined);
}

/** @param {Line | string} line */
export function told(line) {
  if (typeof line === "string") return line;
  const at = line.timestamp ? `${line.timestamp.slice(11, 19)} ` : "";
  return `${at}${line.level ? `${line.level} ` : ""}${line.event}`;
}

/**
 * @param {string} run path of the DAG run in Airflow's API
 * @param {string} model
 * @returns {Promise<string>}
 */
async function newestLines(run, model) {
  const task = taskOf((await ask(`${run}/taskInstances?limit=200`)).task_instances, model);
  if (task === undefined || task.start_date === null) return "The task has not begun.";
  const path = `${run}/taskInstances/${encodeURIComponent(task.task_id)}/logs/${task.try_number}`;
  const { content } = await ask(`${path}?map_index=${task.map_index}`);
  return content.slice(-MOST_LINES).map(told).join("\n") || "The log is empty.";
}

/**
 * Show the log in a <details>, from when it is opened until it is closed or nothing more is to come.
 * @param {HTMLDetailsElement} place
 * @param {() => boolean} isOver
 */
export function showTaskLog(place, isOver) {
  const { dag = "", dagRun = "", model = "" } = place.dataset;
  const run = `dags/${encodeURIComponent(dag)}/dagRuns/${encodeURIComponent(dagRun)}`;
  const lines = /** @type {HTMLElement} */ (place.querySelector("pre"));
  let looking = false;

  async function look() {
    while (place.open) {
      const over = isOver();
      const words = await newestLines(run, model).catch((error) => String(error.message ?? error));
      const wasAtEnd = lines.scrollTop + lines.clientHeight >= lines.scrollHeight - 20;
      if (lines.textContent !== words) lines.textContent = words;
      if (wasAtEnd) lines.scrollTop = lines.scrollHeight;
      if (over) return;
      await new Promise((done) => setTimeout(done, ASK_MS));
    }
  }

  place.addEventListener("toggle", () => {
    if (!place.open || looking) return;
    looking = true;
    void look().finally(() => { looking = false; });
  });
}
