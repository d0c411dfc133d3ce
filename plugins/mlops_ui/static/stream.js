// The live event stream in a page: one WebSocket for all topics. When it breaks it is opened again a little later, and
// each topic goes on after the newest event that came, so that every event is handled once.

/**
 * @typedef {{ sequence?: number, id?: number }} Numbered
 * @typedef {object} Follower
 * @property {(events: any[]) => void} onEvents takes new events, in order
 * @property {() => void} [onEnded] the topic has no more events
 * @property {(detail: string) => void} [onRefused] there is no such topic, or too many are followed
 * @typedef {Follower & { after: number }} Followed
 * @typedef {"connecting" | "live" | "waiting" | "closed"} LinkState
 */

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 15_000;
const SILENCE_MS = 45_000; // three heartbeats

/** A connection to `/mlops/v1/stream` that outlasts its WebSockets. */
export class TrainingProgressWebSocket {
  /** @type {Map<string, Followed>} */
  #topics = new Map();
  /** @type {WebSocket | undefined} */
  #socket;
  #pause = FIRST_PAUSE_MS;
  /** @type {number | undefined} */
  #timer;
  /** @type {number | undefined} */
  #silence;
  #closed = false;
  #address;
  #onState;
  #silenceMs;

  /**
   * @param {string} address path or address of the stream
   * @param {object} [options]
   * @param {(state: LinkState) => void} [options.onState]
   * @param {number} [options.silenceMs] a connection on which nothing comes for so long counts as lost
   */
  constructor(address, { onState = () => {}, silenceMs = SILENCE_MS } = {}) {
    const whole = new URL(address, location.href);
    whole.protocol = whole.protocol === "https:" ? "wss:" : "ws:";
    this.#address = whole;
    this.#onState = onState;
    this.#silenceMs = silenceMs;
  }

  /**
   * Follow a topic: `runs/<run id>`, `alerts`, `deployments` or `rollouts`.
   * @param {string} topic
   * @param {number} after only events with larger numbers
   * @param {Follower} follower
   */
  subscribe(topic, after, follower) {
    this.#topics.set(topic, { ...follower, after });
    if (this.#socket === undefined && this.#timer === undefined && !this.#closed) this.#connect();
    else this.#say("subscribe", topic, after);
  }

  /** @param {string} topic */
  unsubscribe(topic) {
    if (this.#topics.delete(topic)) this.#say("unsubscribe", topic);
  }

  /**
   * The number of the newest event of a topic that was handled.
   * @param {string} topic
   */
  after(topic) {
    return this.#topics.get(topic)?.after;
  }

  /** End it for good. */
  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#silence);
    this.#socket?.close();
    this.#onState("closed");
  }

  /**
   * Take events that came by another way, e.g. by asking for them. Known ones are left out.
   * @param {string} topic
   * @param {Numbered[]} events
   */
  take(topic, events) {
    const followed = this.#topics.get(topic);
    if (followed === undefined) return;
    const fresh = events.filter((event) => numberOf(event) > followed.after);
    if (fresh.length === 0) return;
    followed.after = numberOf(/** @type {Numbered} */ (fresh.at(-1)));
    followed.onEvents(fresh);
  }

  #connect() {
    this.#timer = undefined;
    this.#onState("connecting");
    const socket = new WebSocket(this.#address);
    this.#socket = socket;
    socket.onopen = () => {
      this.#onState("live");
      this.#listen();
      for (const [topic, { after }] of this.#topics) this.#say("subscribe", topic, after);
    };
    socket.onmessage = (message) => {
      if (socket !== this.#socket) return;
      this.#pause = FIRST_PAUSE_MS;
      this.#listen();
      this.#handle(JSON.parse(message.data));
    };
    socket.onclose = () => this.#lost(socket);
  }

  /** Count a connection as lost that falls silent: a dead one may look open for minutes. */
  #listen() {
    clearTimeout(this.#silence);
    const socket = this.#socket;
    this.#silence = setTimeout(() => {
      if (socket !== undefined) this.#lost(socket);
      socket?.close();
    }, this.#silenceMs);
  }

  /** @param {WebSocket} socket */
  #lost(socket) {
    if (socket !== this.#socket || this.#closed) return;
    this.#socket = undefined;
    clearTimeout(this.#silence);
    this.#onState("waiting");
    if (this.#topics.size === 0) return;
    // Not all pages at one moment, where the server was restarted.
    this.#timer = setTimeout(() => this.#connect(), this.#pause * (0.5 + Math.random()));
    this.#pause = Math.min(2 * this.#pause, LONGEST_PAUSE_MS);
  }

  /** @param {{ type: string, topic: string, events: Numbered[], detail: string }} message */
  #handle({ type, topic, events, detail }) {
    const followed = this.#topics.get(topic);
    if (type === "events") this.take(topic, events);
    if (type === "ended" || type === "refused") this.#topics.delete(topic);
    if (type === "ended") followed?.onEnded?.();
    if (type === "refused") followed?.onRefused?.(detail);
  }

  /**
   * @param {string} type
   * @param {string} topic
   * @param {number} [after]
   */
  #say(type, topic, after) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify({ type, topic, after }));
  }
}

/** @param {Numbered} event */
function numberOf(event) {
  return event.sequence ?? event.id ?? 0;
}
