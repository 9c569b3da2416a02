// Owns the list on the page: one keyed node for each entry, changed only where the model changed.

import { $, avatar, h, icon, setBusy, setText } from "./dom.js";
import { ago, fullTime, linkText, safeLink } from "./words.js";
import { visible } from "./model.js";

// Longer messages are folded, so that one of them cannot fill the page.
const LONG_TEXT = 700;
const LONG_LINES = 12;
const BAR_HEIGHT = 72;

const list = $("list");
const nodes = new Map(); // by id: { item, parts, entry }
const fresh = new Set(); // ids to be shown as just arrived

export function forgetEntries() {
  nodes.clear();
  fresh.clear();
  list.replaceChildren();
}

/** Lets this entry stand out for a moment when it is shown. */
export function highlight(id) {
  fresh.add(id);
}

export function renderEntries(model) {
  const shown = visible(model);
  keepingScroll(() => place(shown.entries, model));
  fresh.clear();
  return shown;
}

export function refreshTimes() {
  const now = new Date();
  for (const { parts } of nodes.values()) setText(parts.time, ago(parts.sentAt, now));
}

export const isAboveView = () => !list.hidden && list.getBoundingClientRect().top < 0;

// --- placing

function place(entries, model) {
  const wanted = new Set(entries.map((entry) => entry.id));
  const heir = heirOfFocus(wanted);
  for (const [id, { item }] of nodes) {
    if (wanted.has(id)) continue;
    item.remove();
    nodes.delete(id);
  }
  let next = list.firstElementChild;
  for (const entry of entries) {
    const node = nodes.get(entry.id) ?? create(entry);
    update(node, entry, model.busy);
    if (node.item === next) next = next.nextElementSibling;
    else list.insertBefore(node.item, next);
  }
  if (heir !== undefined) focusOn(heir);
}

/** Where the focus goes if its entry leaves: undefined if it stays where it is. */
function heirOfFocus(wanted) {
  const item = currentEntry();
  if (!item || wanted.has(item.dataset.id)) return undefined;
  const stays = (other) => wanted.has(other.dataset.id);
  return siblings(item, "nextElementSibling").find(stays)
    ?? siblings(item, "previousElementSibling").find(stays)
    ?? null;
}

function siblings(item, direction) {
  const all = [];
  for (let other = item[direction]; other; other = other[direction]) all.push(other);
  return all;
}

function focusOn(item) {
  (item ?? $("list-title")).focus({ preventScroll: true });
  item?.scrollIntoView({ block: "nearest" });
}

/** Keeps what is being read in its place when something is put in or taken out above it. */
function keepingScroll(change) {
  const anchors = isAboveView() ? inView() : [];
  change();
  const anchor = anchors.find(({ item }) => item.isConnected);
  if (!anchor) return;
  const moved = anchor.item.getBoundingClientRect().top - anchor.top;
  if (Math.abs(moved) >= 1) scrollBy({ top: moved, behavior: "instant" });
}

function inView() {
  const anchors = [];
  for (const item of list.children) {
    const { top, bottom } = item.getBoundingClientRect();
    if (top > innerHeight) break;
    if (bottom > BAR_HEIGHT) anchors.push({ item, top });
  }
  return anchors;
}

// --- one entry

function create(entry) {
  const parts = {
    sender: h("strong", { className: "sender", dir: "auto" }),
    time: h("time", { dateTime: entry.sent_at, title: fullTime(new Date(entry.sent_at)) }),
    sentAt: new Date(entry.sent_at),
    mark: h("span", { className: "mark" }, h("span", { className: "unseen" }, "Unread")),
    toggle: h("button", { type: "button", className: "icon-button", "data-action": "toggle-read" }),
    dismiss: h("button", { type: "button", className: "icon-button", "data-action": "dismiss", title: "Dismiss (x)" }, icon("cross")),
  };
  const from = entry.from ?? {};
  const name = from.name ?? `User ${from.id ?? "?"}`;
  parts.sender.textContent = name;
  parts.name = name;
  parts.sender.title = `User ${from.id ?? "?"}`;
  parts.time.textContent = ago(parts.sentAt);
  parts.dismiss.setAttribute("aria-label", `Dismiss, from ${name}`);
  const item = h("li", { className: "entry", tabIndex: -1, "data-id": entry.id },
    avatar({ ...from, name }),
    h("div", { className: "entry-body" },
      h("p", { className: "meta" }, parts.mark, parts.sender, category(entry), parts.time),
      ...message(entry),
      link(entry),
      data(entry)),
    h("div", { className: "entry-actions" }, parts.toggle, parts.dismiss));
  const node = { item, parts, entry: null };
  nodes.set(entry.id, node);
  item.classList.toggle("is-new", fresh.has(entry.id));
  return node;
}

function update(node, entry, busy) {
  const { item, parts } = node;
  if (node.entry?.read !== entry.read) {
    item.dataset.read = String(entry.read);
    parts.mark.hidden = entry.read;
    parts.toggle.setAttribute("aria-label", `${entry.read ? "Mark as unread" : "Mark as read"}, from ${parts.name}`);
    parts.toggle.title = `${entry.read ? "Mark as unread" : "Mark as read"} (r)`;
    parts.toggle.replaceChildren(icon(entry.read ? "dot" : "check"));
  }
  node.entry = entry;
  setBusy(parts.toggle, busy.has(entry.id));
  setBusy(parts.dismiss, busy.has(entry.id));
}

function category({ category: name }) {
  return name ? h("span", { className: "category", dir: "auto" }, name) : null;
}

function message({ message: text = "" }) {
  const paragraph = h("p", { className: "message", dir: "auto" }, text);
  if (text.length <= LONG_TEXT && text.split("\n").length <= LONG_LINES) return [paragraph];
  paragraph.classList.add("folded");
  const more = h("button", { type: "button", className: "link-like", "aria-expanded": "false" }, "Show all of it");
  more.addEventListener("click", () => {
    const folded = paragraph.classList.toggle("folded");
    more.setAttribute("aria-expanded", String(!folded));
    more.textContent = folded ? "Show all of it" : "Show less";
  });
  return [paragraph, more];
}

function link({ link: address }) {
  const href = safeLink(address);
  if (href) {
    return h("p", { className: "link" },
      h("a", { href, target: "_blank", rel: "noopener noreferrer", title: address }, linkText(address), icon("out")));
  }
  return address ? h("p", { className: "link not-a-link" }, String(address)) : null;
}

function data(entry) {
  if (entry.data === undefined || entry.data === null) return null;
  const details = h("details", { className: "data" }, h("summary", {}, "Details"));
  // Only what is opened is written: a thousand entries may carry much.
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) {
      details.append(h("pre", { tabIndex: 0 }, JSON.stringify(entry.data, null, 2)));
    }
  });
  return details;
}

// --- the entry that the keyboard is at

export const currentEntry = () => document.activeElement?.closest?.("#list > .entry") ?? null;

export function moveTo(direction) {
  const item = currentEntry();
  const next = item
    ? item[direction > 0 ? "nextElementSibling" : "previousElementSibling"]
    : list.firstElementChild;
  if (!next) return;
  next.focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
}

list.addEventListener("animationend", ({ target }) => target.classList.remove("is-new"));
