// Owns the connection: loads the inbox, then follows its stream, and comes back after every loss.

import { Refusal } from "./api.js";

const EVENTS = ["state", "notification", "receipt", "gap"];
const FIRST_DELAY_MS = 250;
const LONGEST_DELAY_MS = 10_000;
const LONGEST_ASKED_MS = 30_000;
const AT_ONCE_MS = 300;
const SHORT_LIFE_MS = 2000;
const LONG_HIDDEN_MS = 60_000;

/**
 * `load()` answers the whole inbox, `check()` throws what is wrong, `url(since)` is the stream's
 * address. Told are `onSnapshot(answer)`, `onEvent(type, data)` and
 * `onStatus({ state, retryAt, problem })`.
 */
export function createConnection({ load, check, url, onSnapshot, onEvent, onStatus }) {
  let source = null;
  let since = null; // null: load everything first
  let failures = 0;
  let timer = null;
  let liveAt = 0;
  let shortLives = 0;
  let reloadedAt = 0;
  let hiddenAt = null;
  let round = 0; // what an earlier round still answers is not heard
  let status = { state: "connecting" };

  function tell(next) {
    status = next;
    onStatus(next);
  }

  function drop() {
    round += 1;
    clearTimeout(timer);
    source?.close();
    source = null;
  }

  async function connect() {
    drop();
    const mine = round;
    tell({ state: "connecting", problem: status.problem });
    try {
      if (since === null) {
        const answer = await load();
        if (mine !== round) return;
        onSnapshot(answer);
        since = answer.cursor;
      }
      open();
    } catch (error) {
      if (mine === round) fail(problemOf(error));
    }
  }

  function open() {
    const opened = new EventSource(url(since));
    source = opened;
    for (const type of EVENTS) opened.addEventListener(type, (event) => opened === source && hear(type, event));
    opened.addEventListener("end", (event) => opened === source && ended(event));
    opened.onerror = () => opened === source && lost(opened);
  }

  function hear(type, event) {
    const data = parsed(event);
    if (data === null) return;
    if (event.lastEventId) since = event.lastEventId;
    else if (type === "state" && data.cursor) since = data.cursor;
    if (type === "state") {
      failures = 0;
      liveAt = Date.now();
      tell({ state: "live" });
    }
    onEvent(type, data);
  }

  function ended(event) {
    if (event.lastEventId) since = event.lastEventId;
    // A stream that was refused for now, in the one form after which an EventSource comes back.
    const problem = parsed(event)?.problem;
    if (problem) return fail(problem);
    shortLives = Date.now() - liveAt < SHORT_LIFE_MS ? shortLives + 1 : 0;
    // A server that ends every stream at once must not be asked in a tight circle.
    if (shortLives > 1) {
      failures = shortLives;
      return fail(null);
    }
    drop();
    tell({ state: "connecting" });
    timer = setTimeout(connect, Math.random() * AT_ONCE_MS);
  }

  async function lost(opened) {
    if (opened.readyState !== EventSource.CLOSED) {
      // The browser comes back by itself, and only it knows how far the heartbeats went.
      tell({ state: unreachable(), problem: null });
      return;
    }
    drop();
    const mine = round;
    tell({ state: "connecting", problem: status.problem });
    // EventSource does not say why it was refused; asking in the ordinary way does.
    const problem = await check().then(() => null, problemOf);
    if (mine === round) fail(problem);
  }

  function fail(problem) {
    drop();
    if (problem?.status === 401) return tell({ state: "waiting", problem });
    const longest = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** failures);
    const asked = Math.min(LONGEST_ASKED_MS, (problem?.retry_after ?? 0) * 1000);
    const spread = 0.5 + Math.random() / 2;
    const delay = Math.max(longest * spread, asked * 2 * spread);
    failures = Math.min(failures + 1, 10);
    timer = setTimeout(connect, delay);
    tell({ state: unreachable(), retryAt: Date.now() + delay, problem });
  }

  function restart() {
    since = null;
    return connect();
  }

  /** For when what the page holds cannot be right; a server that says so again is given time. */
  function reload() {
    since = null;
    const again = Date.now() - reloadedAt < LONGEST_DELAY_MS;
    reloadedAt = Date.now();
    failures = again ? 5 : 0;
    return again ? fail(null) : connect();
  }

  function visibility() {
    if (document.hidden) {
      hiddenAt = Date.now();
      return;
    }
    const long = hiddenAt !== null && Date.now() - hiddenAt > LONG_HIDDEN_MS;
    hiddenAt = null;
    if (long || status.state === "waiting" || status.state === "offline") connect();
  }

  const listeners = new AbortController();
  const { signal } = listeners;
  addEventListener("online", connect, { signal });
  // Without a network this very computer can still be reached: only trying tells.
  addEventListener("offline", connect, { signal });
  document.addEventListener("visibilitychange", visibility, { signal });
  // A page that comes back from the back-forward cache has a dead stream.
  addEventListener("pageshow", (event) => event.persisted && connect(), { signal });

  return {
    start: restart,
    reload,
    retryNow: connect,
    close() {
      listeners.abort();
      drop();
    },
  };
}

function unreachable() {
  return navigator.onLine ? "waiting" : "offline";
}

function problemOf(error) {
  if (error instanceof Refusal) return error.problem;
  console.error(error);
  return { status: 0, message: "This page has a defect; reloading it may help" };
}

function parsed(event) {
  try {
    return JSON.parse(event.data);
  } catch {
    return null;
  }
}
