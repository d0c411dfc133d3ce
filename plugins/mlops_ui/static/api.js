// Asks the API below /mlops/v1, with the cookie of Airflow's pages.

const root = document.documentElement.dataset;

/** Where Airflow itself is served at. */
export const airflow = root.airflow ?? "";

/** Where the API is served at. */
export const api = root.api ?? "";

/** What the API has refused, and what to do. */
export class Problem extends Error {
  /**
   * @param {number} status 0: no answer
   * @param {string} detail
   */
  constructor(status, detail) {
    super(detail);
    this.status = status;
    this.detail = detail;
  }
}

/**
 * @param {string} path below the API, e.g. `training/runs`
 * @param {RequestInit} options
 * @returns {Promise<any>} the answer
 * @throws {Problem}
 */
async function ask(path, options) {
  const answer = await fetch(`${api}/${path}`, options).catch(() => {
    throw new Problem(0, "the server does not answer; try again in a moment");
  });
  const content = await answer.json().catch(() => ({}));
  if (answer.status === 401) throw new Problem(401, "you are signed out: sign in to Airflow and reload this page");
  if (!answer.ok) throw new Problem(answer.status, content.detail ?? `the server answers ${answer.status}`);
  return content;
}

/** @param {string} path */
export const get = (path) => ask(path, {});

/**
 * @param {string} path
 * @param {unknown} body
 */
export const post = (path, body = {}) =>
  ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
