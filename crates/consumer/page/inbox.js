// Owns the page as a whole: which inbox is open, and how its model, connection and views meet.

import { $, avatar, h, icon, isBusy, setBusy, setText } from "./dom.js";
import { inbox, keepToken, streamUrl, token } from "./api.js";
import { showBadge } from "./badge.js";
import { composeAs, openCompose, showSuggestions, startCompose, suggestCategories } from "./compose.js";
import { listenForKeys } from "./keys.js";
import {
  applyAnswer, applyEvent, applySnapshot, categories, emptyInbox, holds, lacks, matches, ownName,
  withBusy, withFilter, withMore, withoutGap,
} from "./model.js";
import { everybody, loadPeople, nameOf, userFrom } from "./people.js";
import { createConnection } from "./stream.js";
import { currentEntry, forgetEntries, highlight, isAboveView, moveTo, refreshTimes, renderEntries } from "./view.js";
import { gapInWords, plural, problemInWords, shortened } from "./words.js";

const LAST_USER = "inbox.user";
const SHOWN_AT_MOST_EVERY_MS = 16;
const SPOKEN_AT_MOST_EVERY_MS = 1200;
const TIMES_EVERY_MS = 30_000;
const OFFERED_PEOPLE = 12;

let model = null;
let connection = null;
let status = { state: "connecting" };
let trouble = null; // an action that did not work: its sentence
let drawing = null;
let arrived = []; // not yet announced
let speaking = null;
let unseen = 0; // arrived above what is in view
let drawnCategories = "";

// --- which inbox

function start() {
  startCompose({ denied: askForToken });
  wire();
  const user = rememberedUser();
  if (user) openInbox(user);
  else showWelcome();
  refreshPeople();
  setInterval(refreshTimes, TIMES_EVERY_MS);
  setInterval(showCountdown, 1000);
}

function rememberedUser() {
  const asked = new URLSearchParams(location.search).get("user");
  if (asked) return userFrom(asked);
  try {
    return userFrom(localStorage.getItem(LAST_USER) ?? "");
  } catch {
    return null;
  }
}

function rememberUser(user) {
  const url = new URL(location.href);
  url.searchParams.set("user", user);
  history.replaceState(null, "", url);
  try {
    localStorage.setItem(LAST_USER, user);
  } catch { /* then it is not remembered */ }
}

function openInbox(user) {
  connection?.close();
  rememberUser(user);
  model = emptyInbox(user);
  trouble = null;
  unseen = 0;
  arrived = [];
  forgetEntries();
  $("user").value = String(user);
  $("welcome").hidden = $("token-form").hidden = $("user-error").hidden = true;
  $("inbox").hidden = $("connection").hidden = false;
  composeAs(user);
  connection = createConnection({
    load: () => inbox.get(user),
    check: () => inbox.get(user, "?limit=1"),
    url: (since) => streamUrl(user, since),
    onSnapshot: (answer) => change(applySnapshot(model, answer)),
    onEvent: hear,
    onStatus: showStatus,
  });
  connection.start();
  drawNow();
}

function showWelcome() {
  $("welcome").hidden = false;
  $("user").focus();
}

async function refreshPeople() {
  await loadPeople();
  showSuggestions();
  if (model) composeAs(model.user);
  $("welcome-people").replaceChildren(...everybody().slice(0, OFFERED_PEOPLE).map((person) =>
    h("li", {}, h("button", { type: "button", className: "person", onclick: () => openInbox(person.id) },
      avatar(person), h("span", { dir: "auto" }, person.name)))));
  draw();
}

function owner() {
  return ownName(model) ?? nameOf(model.user) ?? `User ${model.user}`;
}

// --- what the server says

function change(next) {
  model = next;
  draw();
}

function hear(type, data) {
  if (type === "gap" && data.reason === "unknown") {
    change(applyEvent({ ...emptyInbox(model.user), category: model.category, unreadOnly: model.unreadOnly }, type, data));
    forgetEntries();
    connection.reload();
    return;
  }
  if (type === "notification" && !holds(model, data.id)) arrive(data);
  change(applyEvent(model, type, data));
  if (type === "state" && lacks(model, data)) connection.reload();
}

function arrive(entry) {
  if (matches(model, entry) && isAboveView()) unseen += 1;
  arrived.push(entry);
  highlight(entry.id);
  speaking ??= setTimeout(speak, arrived.length === 1 ? 150 : SPOKEN_AT_MOST_EVERY_MS);
}

function speak() {
  const [one] = arrived;
  const text = arrived.length === 1
    ? `New from ${one.from?.name ?? "somebody"}: ${shortened(one.message ?? "", 100)}`
    : `${arrived.length} new notifications`;
  if (arrived.length > 0) $("announcer").textContent = text;
  arrived = [];
  // What comes right after is gathered, so that a flood is one sentence.
  speaking = setTimeout(() => {
    speaking = null;
    if (arrived.length > 0) speak();
  }, SPOKEN_AT_MOST_EVERY_MS);
}

// --- what the reader does

async function act(key, action, ids, request) {
  if (ids.length === 0 || model.busy.has(key)) return;
  const { user, clock: asked } = model;
  trouble = null;
  change(withBusy(model, key, true));
  let next = (now) => now;
  try {
    const answer = await request(user);
    next = (now) => applyAnswer(now, { action, ids, unread: answer.unread, asked });
  } catch (error) {
    if (action === "dismissed" && error.problem?.status === 404) {
      next = (now) => applyAnswer(now, { action, ids, asked });
    } else if (error.problem?.status === 401) {
      askForToken(error.problem);
    } else {
      trouble = `That did not work. ${problemInWords(error.problem ?? { message: String(error) })}`;
    }
  }
  if (model.user === user) change(withBusy(next(model), key, false));
}

function toggleRead(id) {
  const entry = model.entries.find((other) => other.id === id);
  if (!entry) return;
  const action = entry.read ? "unread" : "read";
  act(id, action, [id], (user) => inbox.mark(user, action, { ids: [id] }));
}

function dismiss(id) {
  act(id, "dismissed", [id], (user) => inbox.dismiss(user, id));
}

/** Only what is there now: what arrives meanwhile has not been seen. */
function markAllRead() {
  const through = model.entries.at(-1)?.cursor;
  act("all", "read", model.entries.map((entry) => entry.id), (user) => inbox.mark(user, "read", { through }));
}

function askToDismissAll() {
  if (model.entries.length === 0 || isBusy($("dismiss-all"))) return;
  setText($("confirm-text"), `${plural(model.entries.length, "notification")} of ${owner()} will be gone on every device. This cannot be undone.`);
  $("confirm").showModal();
}

function dismissAll() {
  $("confirm").close();
  act("all", "dismissed", model.entries.map((entry) => entry.id), (user) => inbox.dismissAll(user));
}

function chooseUser(event) {
  event.preventDefault();
  const user = userFrom($("user").value);
  $("user-error").hidden = user !== null;
  if (user === null) {
    setText($("user-error"), "Enter a user's number, such as 1, or a name that is known here.");
    $("user").setAttribute("aria-invalid", "true");
    $("user").focus();
    return;
  }
  $("user").removeAttribute("aria-invalid");
  if (user === model?.user) return connection.retryNow();
  openInbox(user);
}

function askForToken(problem) {
  const form = $("token-form");
  if (form.hidden) $("token").value = "";
  form.hidden = false;
  setText($("token-why"), token() && problem
    ? `That token was not accepted: ${problemInWords(problem)}`
    : "It is kept until this tab is closed.");
  $("token").focus();
}

function takeToken(event) {
  event.preventDefault();
  const value = $("token").value.trim().replace(/^Bearer\s+/i, "");
  if (!value) return $("token").focus();
  keepToken(value);
  $("token-form").hidden = true;
  $("list-title").focus();
  refreshPeople();
  if (model?.loaded) connection.retryNow();
  else connection?.start();
}

function jumpUp() {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  scrollTo({ top: 0, behavior: calm ? "instant" : "smooth" });
  $("list").firstElementChild?.focus({ preventScroll: true });
  sawTop();
}

function sawTop() {
  if (unseen === 0) return;
  unseen = 0;
  showJump();
}

// --- drawing

function draw() {
  // Not a frame's callback: those rest in a hidden tab, whose title must still tell.
  drawing ??= setTimeout(drawNow, SHOWN_AT_MOST_EVERY_MS);
}

function drawNow() {
  clearTimeout(drawing);
  drawing = null;
  if (!model) return;
  const shown = renderEntries(model);
  showHead();
  showFilters(shown);
  showEmpty(shown);
  showNotices();
  showJump();
  showBadge(model.unread, owner());
}

function showHead() {
  setText($("owner"), owner());
  setText($("unread"), String(model.unread));
  $("unread").parentElement.classList.toggle("none", model.unread === 0);
  const busy = model.busy.has("all");
  setBusy($("mark-all-read"), busy || model.unread === 0);
  setBusy($("dismiss-all"), busy || model.entries.length === 0);
}

function showFilters({ total, entries }) {
  const found = categories(model);
  $("show-all").setAttribute("aria-pressed", String(!model.unreadOnly));
  $("show-unread").setAttribute("aria-pressed", String(model.unreadOnly));
  $("category-filter").hidden = found.length === 0;
  const options = [["", "All categories"], ...found.map(([name, count]) => [`=${name}`, `${name} (${count})`])];
  const key = JSON.stringify(options);
  if (key !== drawnCategories) {
    drawnCategories = key;
    $("filter-category").replaceChildren(...options.map(([value, text]) => h("option", { value }, text)));
    suggestCategories(found.map(([name]) => name));
  }
  $("filter-category").value = model.category === null ? "" : `=${model.category}`;
  const left = total - entries.length;
  setText($("count"), total === 0 ? "" : left > 0 ? `${entries.length} of ${total}` : plural(total, "notification"));
  $("show-more").hidden = left === 0;
  setText($("show-more"), `Show ${Math.min(left, 100)} more`);
}

function showEmpty({ total }) {
  const loading = !model.loaded;
  $("skeleton").hidden = !loading;
  $("list").hidden = total === 0;
  $("empty").hidden = loading || total > 0;
  if ($("empty").hidden) return;
  const filtered = model.entries.length > 0;
  setText($("empty-title"), !filtered ? "All clear" : model.unreadOnly && model.category === null ? "Everything is read" : "Nothing matches");
  setText($("empty-text"), filtered
    ? "The filter hides what else is in this inbox."
    : `Nothing is waiting for ${owner()}. What arrives appears here at once.`);
  $("clear-filter").hidden = !filtered;
}

function showNotices() {
  const notices = model.gaps.map((gap) => ({ text: gapInWords(gap), close: () => change(withoutGap(model, gap)) }));
  if (trouble) notices.unshift({ text: trouble, kind: "bad", close: () => { trouble = null; draw(); } });
  const problem = status.problem;
  if (problem && problem.status !== 401) notices.unshift({ text: problemInWords(problem) });
  const key = JSON.stringify(notices);
  if ($("notices").dataset.key === key) return;
  $("notices").dataset.key = key;
  $("notices").replaceChildren(...notices.map(notice));
}

function notice({ text, kind = "plain", close }) {
  return h("div", { className: "notice", "data-kind": kind }, icon("info"), h("p", {}, text),
    close ? h("button", { type: "button", className: "icon-button", "aria-label": "Close this notice", onclick: () => closeNotice(close) }, icon("cross")) : null);
}

function closeNotice(close) {
  close();
  drawNow();
  ($("notices").querySelector("button") ?? $("list-title")).focus();
}

function showJump() {
  if (unseen > 0 && !isAboveView()) unseen = 0;
  $("jump").hidden = unseen === 0;
  setText($("jump-text"), `${unseen} new`);
}

const SAID = { live: "Live", connecting: "Connecting…", waiting: "Reconnecting", offline: "Offline" };

function showStatus(next) {
  const before = status.state;
  status = next;
  $("connection").dataset.state = next.state;
  const denied = next.problem?.status === 401;
  $("try-now").hidden = denied || (next.state !== "waiting" && next.state !== "offline");
  // A moment without connection is not worth a sentence.
  if (next.state !== before && next.state !== "connecting") setText($("connection-said"), SAID[next.state]);
  if (denied && next.state === "waiting") askForToken(next.problem);
  if (next.state === "live") $("token-form").hidden = true;
  showCountdown();
  draw();
}

function showCountdown() {
  setText($("connection-text"), statusInWords());
}

function statusInWords() {
  const { state, retryAt, problem } = status;
  if (state === "waiting" && problem?.status === 401) return "Token needed";
  if (state !== "waiting") return SAID[state];
  const seconds = Math.ceil((retryAt - Date.now()) / 1000);
  return seconds > 0 ? `Reconnecting in ${seconds} s` : "Reconnecting…";
}

// --- wiring

function wire() {
  $("user-form").addEventListener("submit", chooseUser);
  $("token-form").addEventListener("submit", takeToken);
  $("try-now").addEventListener("click", () => connection?.retryNow());
  $("list").addEventListener("click", clicked);
  $("mark-all-read").addEventListener("click", () => !isBusy($("mark-all-read")) && markAllRead());
  $("dismiss-all").addEventListener("click", askToDismissAll);
  $("confirm-yes").addEventListener("click", dismissAll);
  $("confirm-no").addEventListener("click", () => $("confirm").close());
  $("show-all").addEventListener("click", () => filter({ unreadOnly: false }));
  $("show-unread").addEventListener("click", () => filter({ unreadOnly: true }));
  $("filter-category").addEventListener("change", ({ target }) => filter({ category: target.value ? target.value.slice(1) : null }));
  $("clear-filter").addEventListener("click", () => {
    filter({ unreadOnly: false, category: null });
    $("list-title").focus();
  });
  $("show-more").addEventListener("click", showMore);
  $("jump").addEventListener("click", jumpUp);
  $("show-help").addEventListener("click", () => $("help").showModal());
  $("help-close").addEventListener("click", () => $("help").close());
  for (const dialog of [$("confirm"), $("help")]) {
    // A click on the backdrop is one on the dialog itself.
    dialog.addEventListener("click", ({ target }) => target === dialog && dialog.close());
  }
  addEventListener("scroll", () => unseen > 0 && !isAboveView() && sawTop(), { passive: true });
  listenForKeys({
    j: () => moveTo(1),
    k: () => moveTo(-1),
    ArrowDown: () => currentEntry() ? moveTo(1) : false,
    ArrowUp: () => currentEntry() ? moveTo(-1) : false,
    r: () => withCurrent(toggleRead),
    x: () => withCurrent(dismiss),
    Delete: () => withCurrent(dismiss),
    "/": () => $($("category-filter").hidden ? "show-unread" : "filter-category").focus(),
    c: openCompose,
    "?": () => $("help").showModal(),
  });
}

function withCurrent(action) {
  const item = currentEntry();
  if (!item) return false;
  action(item.dataset.id);
  return true;
}

function clicked({ target }) {
  const button = target.closest("[data-action]");
  if (!button || isBusy(button)) return;
  const { id } = button.closest(".entry").dataset;
  if (button.dataset.action === "toggle-read") toggleRead(id);
  else dismiss(id);
}

function filter(wanted) {
  change(withFilter(model, wanted));
  drawNow();
}

function showMore() {
  const last = $("list").lastElementChild;
  change(withMore(model));
  drawNow();
  last?.nextElementSibling?.focus({ preventScroll: true });
}

start();
