// Owns the compose form: what is typed, how it is checked and sent, and what is said about it.

import { $, h, isBusy, setBusy, setText } from "./dom.js";
import { producer, send } from "./api.js";
import { everybody, nameOf, userFrom, usersFrom } from "./people.js";
import { plural, problemInWords } from "./words.js";

const LONGEST_MESSAGE = 4096;
const LONGEST_CATEGORY = 64;
const SUGGESTED = 8;
const FIELDS = { from_id: "from", to_id: "to", message: "message", category: "category", link: "link" };

let attempt = null; // the last message that was sent or tried, with its key
let fromTyped = false;

/** `denied(problem)` is told when the producer asks for a token. */
export function startCompose({ denied }) {
  $("show-compose").hidden = $("compose-panel").hidden = producer === null;
  $("compose-key").hidden = producer === null;
  if (producer === null) return;
  document.body.classList.add("has-compose");
  if (/mac|iphone|ipad/i.test(navigator.userAgent)) setText($("send-modifier"), "⌘");
  const form = $("compose");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit(denied);
  });
  form.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    submit(denied);
  });
  form.addEventListener("input", ({ target }) => edited(target));
  $("show-compose").addEventListener("click", () => showPanel(!isPanelShown()));
  $("hide-compose").addEventListener("click", () => {
    showPanel(false);
    $("show-compose").focus();
  });
  showSuggestions();
  showHints();
}

export function openCompose() {
  if (producer === null) return false;
  showPanel(true);
  const empty = ["from", "to"].find((id) => $(id).value.trim() === "");
  $(empty ?? "message").focus();
  return true;
}

/** Whoever reads an inbox most likely writes as its owner. */
export function composeAs(user) {
  if (!fromTyped) $("from").value = String(user);
  showSuggestions();
  showHints();
}

export function showSuggestions() {
  const writer = userFrom($("from").value);
  const offered = everybody().filter(({ id }) => id !== writer).slice(0, SUGGESTED);
  const chosen = new Set(usersFrom($("to").value).ids);
  $("to-people").replaceChildren(...offered.map(({ id, name }) => h("button", {
    type: "button",
    className: "chip",
    "aria-pressed": String(chosen.has(id)),
    "data-user": String(id),
    onclick: () => toggleRecipient(id),
  }, name)));
}

export function suggestCategories(names) {
  $("known-categories").replaceChildren(...names.map((name) => h("option", { value: name })));
}

const isPanelShown = () => $("compose-panel").classList.contains("is-open");

function showPanel(shown) {
  $("compose-panel").classList.toggle("is-open", shown);
  $("show-compose").setAttribute("aria-expanded", String(shown));
  if (shown) $("compose-panel").scrollIntoView({ block: "nearest" });
}

function toggleRecipient(id) {
  const { ids, unclear } = usersFrom($("to").value);
  const next = ids.includes(id) ? ids.filter((other) => other !== id) : [...ids, id];
  $("to").value = [...next, ...unclear].join(", ");
  edited($("to"));
  $("to-people").querySelector(`[data-user="${id}"]`)?.focus();
}

function edited(field) {
  if (field.id === "from") fromTyped = field.value !== "";
  field.removeAttribute("aria-invalid");
  if (field.id === "from" || field.id === "to") showSuggestions();
  setText($("send-label"), "Send");
  say("", "");
  showHints();
}

function showHints() {
  const from = userFrom($("from").value);
  hint("from", from && nameOf(from) !== $("from").value.trim() ? nameOf(from) ?? "" : "");
  const { ids } = usersFrom($("to").value);
  const names = ids.map((id) => nameOf(id) ?? `User ${id}`);
  hint("to", names.length > 5 ? plural(names.length, "recipient") : names.join(", "));
  for (const id of ["message", "category", "link"]) hint(id, "");
  const length = lengthOf($("message").value);
  setText($("counter"), `${length} / ${LONGEST_MESSAGE}`);
  $("counter").classList.toggle("too-long", length > LONGEST_MESSAGE);
}

function hint(id, text, wrong = false) {
  const element = $(`${id}-hint`);
  setText(element, text);
  element.classList.toggle("wrong", wrong);
  if (wrong) $(id).setAttribute("aria-invalid", "true");
}

// The service counts characters, not the units of UTF-16 that a length is.
const lengthOf = (text) => [...text].length;

/** What is to be sent, or null after saying what is wrong. */
function checked() {
  const from = userFrom($("from").value);
  const to = usersFrom($("to").value);
  const message = $("message").value;
  const category = $("category").value.trim();
  const link = $("link").value.trim();
  const wrong = [
    ["from", from === null && "Enter a user's number or name"],
    ["to", to.unclear.length > 0 && `Not a user: ${to.unclear.join(", ")}`],
    ["to", to.ids.length + to.unclear.length === 0 && "Enter at least one user's number or name"],
    ["message", message.trim() === "" && "Write a message"],
    ["message", lengthOf(message) > LONGEST_MESSAGE && `At most ${LONGEST_MESSAGE} characters`],
    ["category", lengthOf(category) > LONGEST_CATEGORY && `At most ${LONGEST_CATEGORY} characters`],
    ["link", link !== "" && !/^(https?:\/\/[^/]|\/(?![/\\]))/i.test(link) && "Begin with https://, http:// or a single /"],
  ].filter(([, text]) => text);
  for (const [id, text] of wrong) hint(id, text, true);
  if (wrong.length > 0) {
    $(wrong[0][0]).focus();
    return null;
  }
  return {
    from_id: from,
    to_id: to.ids.length === 1 ? to.ids[0] : to.ids,
    message,
    ...(category && { category }),
    ...(link && { link }),
  };
}

async function submit(denied) {
  if (isBusy($("send"))) return;
  showHints();
  const message = checked();
  if (!message) return;
  const text = JSON.stringify(message);
  // The same message again is a retry, and its key keeps it from arriving twice.
  if (attempt?.text !== text) attempt = { text, key: newKey() };
  setBusy($("send"), true);
  setText($("send-label"), "Sending…");
  say("", "");
  try {
    sent(await send(message, attempt.key));
  } catch (error) {
    notSent(error.problem ?? { status: 0, message: String(error) }, denied);
  } finally {
    setBusy($("send"), false);
  }
}

function sent(answer) {
  attempt = null;
  setText($("send-label"), "Send");
  const count = answer.sent?.length ?? 1;
  const names = (answer.sent ?? []).map(({ to_id: id }) => nameOf(id) ?? `user ${id}`);
  say(names.length > 0 && count <= 3 ? `Sent to ${names.join(", ")}.` : `Sent to ${plural(count, "user")}.`, "good");
  $("message").value = $("link").value = "";
  showHints();
  if (document.activeElement === $("send")) $("message").focus();
}

function notSent(problem, denied) {
  const field = FIELDS[problem.field];
  setText($("send-label"), field ? "Send" : "Send again");
  say(field ? "Not sent: see above." : reasonFor(problem), "bad");
  if (problem.status === 401) denied(problem);
  if (!field) return;
  // Below its own field the name would be said twice.
  const said = problemInWords(problem).replace(`${problem.field}: `, "");
  hint(field, said[0].toUpperCase() + said.slice(1), true);
  $(field).focus();
}

function reasonFor(problem) {
  if (problem.late || problem.status === 504) {
    return "The outcome is unknown. It is safe to retry: the notification will not arrive twice.";
  }
  if (problem.status === 0) {
    return `The producer at ${producer} cannot be reached from this page. Is it running, and does it allow this origin (--cors-origins)?`;
  }
  return `Not sent. ${problemInWords(problem)}`;
}

function say(text, kind) {
  $("send-result").dataset.kind = kind;
  setText($("send-result"), text);
}

function newKey() {
  // randomUUID exists only where the page came over https or from this computer.
  if (crypto.randomUUID) return crypto.randomUUID();
  const hex = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
