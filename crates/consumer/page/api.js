// Owns the requests to both services, and the access token that they may ask for.

const TOKEN = "inbox.token";
const PATIENCE_MS = 20_000;

/** An error answer: its `problem` is the body, or one made up in its place. */
export class Refusal extends Error {
  constructor(problem) {
    super(problem.message);
    this.problem = problem;
  }
}

let kept = null;

export function token() {
  try {
    return sessionStorage.getItem(TOKEN) ?? kept;
  } catch {
    return kept; // storage can be forbidden; then the token lives as long as the page
  }
}

export function keepToken(value) {
  kept = value;
  try {
    sessionStorage.setItem(TOKEN, value);
  } catch { /* kept in memory */ }
}

export const producer = producerUrl();

function producerUrl() {
  const url = document.querySelector('meta[name="producer-url"]').content.trim();
  return /^https?:\/\//i.test(url) ? url.replace(/\/+$/, "") : null;
}

export const inbox = {
  get: (user, query = "") => request(`/notifications/${user}${query}`),
  mark: (user, action, which) => request(`/notifications/${user}/${action}`, { method: "POST", json: which }),
  dismiss: (user, id) => request(`/notifications/${user}/${encodeURIComponent(id)}`, { method: "DELETE" }),
  dismissAll: (user) => request(`/notifications/${user}`, { method: "DELETE" }),
};

/** EventSource cannot send headers, so the token goes into the address. */
export function streamUrl(user, since) {
  const query = new URLSearchParams();
  if (since) query.set("since", since);
  if (token()) query.set("access_token", token());
  return `/notifications/${user}/stream?${query}`;
}

export function send(message, key) {
  return request(`${producer}/send`, { method: "POST", json: message, headers: { "Idempotency-Key": `"${key}"` } });
}

export function users() {
  return request(`${producer}/users?limit=100`);
}

async function request(url, { method = "GET", json, headers = {} } = {}) {
  const all = { Accept: "application/json", ...headers };
  if (json) all["Content-Type"] = "application/json";
  if (token()) all.Authorization = `Bearer ${token()}`;
  const response = await reach(url, {
    method,
    headers: all,
    body: json && JSON.stringify(json),
    cache: "no-store",
    signal: AbortSignal.timeout?.(PATIENCE_MS),
  });
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  throw new Refusal({ message: `The server answered ${response.status}`, ...body, status: response.status });
}

async function reach(url, options) {
  try {
    return await fetch(url, options);
  } catch (error) {
    const late = error.name === "TimeoutError";
    throw new Refusal({
      status: 0,
      late,
      message: late ? "The server did not answer in time" : "The server cannot be reached",
    });
  }
}
