// Turns times, links and errors into text.

const MINUTE = 60;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

const full = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });
const thisYear = new Intl.DateTimeFormat("en", { day: "numeric", month: "short" });
const otherYear = new Intl.DateTimeFormat("en", { day: "numeric", month: "short", year: "numeric" });

export function ago(date, now = new Date()) {
  const seconds = (now - date) / 1000;
  if (Number.isNaN(seconds)) return "";
  if (seconds < 45) return "just now";
  if (seconds < HOUR) return `${Math.max(1, Math.floor(seconds / MINUTE))} min ago`;
  if (seconds < DAY) return `${Math.floor(seconds / HOUR)} h ago`;
  if (seconds < 7 * DAY) return `${Math.floor(seconds / DAY)} d ago`;
  return (date.getFullYear() === now.getFullYear() ? thisYear : otherYear).format(date);
}

export function fullTime(date) {
  return Number.isNaN(date.getTime()) ? "" : full.format(date);
}

export function plural(count, one, many = `${one}s`) {
  return `${count} ${count === 1 ? one : many}`;
}

export function shortened(text, length) {
  const characters = [...text.replace(/\s+/g, " ")];
  return characters.length <= length ? characters.join("") : `${characters.slice(0, length - 1).join("")}…`;
}

/** The address to link to, or null if the text must not become a link. */
export function safeLink(link, origin = location.origin) {
  if (typeof link !== "string") return null;
  try {
    if (/^https?:\/\//i.test(link)) return new URL(link).href;
    // The parser drops tabs and takes a backslash for a slash; only its result tells the host.
    const url = link.startsWith("/") ? new URL(link, origin) : null;
    return url?.origin === origin && !/^\/[/\\]/.test(link) ? url.href : null;
  } catch {
    return null;
  }
}

export function linkText(link) {
  return shortened(link.replace(/^https?:\/\/(www\.)?/i, "").replace(/\/$/, ""), 60);
}

const STATES = {
  unowned: "This inbox is moving to another server. One moment.",
  live: "This inbox has not caught up yet. One moment.",
  behind: "This inbox cannot be brought up to date at the moment.",
};

/** A problem (an error answer's body) as a sentence for people. */
export function problemInWords(problem) {
  if (problem.state === "rebuilding") return rebuilding(problem.progress?.percent);
  if (STATES[problem.state]) return STATES[problem.state];
  const message = sentence(problem.message ?? problem.detail ?? `The server answered ${problem.status}`);
  return problem.retry_after ? `${message} Try again in ${plural(Math.ceil(problem.retry_after), "second")}.` : message;
}

function rebuilding(percent) {
  return Number.isFinite(percent)
    ? `The inbox is being rebuilt: ${Math.floor(percent)} %`
    : "The inbox is being rebuilt.";
}

function sentence(text) {
  return /[.!?…]$/.test(text) ? text : `${text}.`;
}

const GAPS = {
  evicted: "Some older entries are not shown: an inbox keeps only its newest entries.",
  expired: "Some older entries are not shown: they expired while you were away.",
  retention: "Some entries may be missing: the server's log dropped its oldest records while you were away.",
  unknown: "The inbox was reloaded: the server's log was replaced.",
};

export function gapInWords({ reason }) {
  return GAPS[reason] ?? "Some entries may be missing between the older and the newer ones.";
}
