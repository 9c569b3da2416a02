// Owns what the page knows of one inbox: a plain object, and pure functions that
// answer a new one for everything that can happen to it.

export const PAGE_SIZE = 100;
// A page that stays open for weeks must not grow without end.
const MOST_HELD = 5000;

export function emptyInbox(user) {
  return {
    user,
    loaded: false,
    entries: [], // oldest first
    unread: 0,
    gaps: [],
    busy: new Set(), // ids (or "all") with a request under way
    category: null,
    unreadOnly: false,
    shown: PAGE_SIZE,
    clock: 0, // counts what the stream told, so that a late answer is known as late
  };
}

// --- cursors

export function parseCursor(text) {
  const parts = /^(\d+)-(\d+|start)(?:-([0-9a-f]{8}))?$/.exec(text ?? "");
  if (!parts) return null;
  const offset = parts[2] === "start" ? -1 : Number(parts[2]);
  return { partition: Number(parts[1]), offset, epoch: parts[3] ?? null };
}

export function isAtOrBefore(a, b) {
  const [left, right] = [parseCursor(a), parseCursor(b)];
  if (!left || !right) return true;
  // An inbox lives in one partition of one log: what is held from another one is from before.
  return left.partition !== right.partition || left.epoch !== right.epoch || left.offset <= right.offset;
}

// --- what the server says

export function applySnapshot(model, answer) {
  const entries = answer.notifications.map((entry) => ({ ...entry, touched: 0 }));
  return { ...model, loaded: true, entries, unread: answer.unread, clock: model.clock + 1 };
}

export function applyEvent(model, type, data) {
  switch (type) {
    case "state": return applyState(model, data);
    case "notification": return applyNotification(model, data);
    case "receipt": return applyReceipt(model, data);
    case "gap": return applyGap(model, data);
    default: return model;
  }
}

function applyState(model, { unread, read_ids: readIds = [], unread_ids: unreadIds = [], cursor }) {
  const clock = model.clock + 1;
  const read = new Map([...readIds.map((id) => [id, true]), ...unreadIds.map((id) => [id, false])]);
  const entries = model.entries
    .filter((entry) => read.has(entry.id) || !isAtOrBefore(entry.cursor, cursor))
    .map((entry) => read.has(entry.id) ? { ...entry, read: read.get(entry.id), touched: clock } : entry);
  return { ...model, clock, entries, unread };
}

/** Whether a `state` speaks of entries that the page does not hold. */
export function lacks(model, { read_ids: readIds = [], unread_ids: unreadIds = [] }) {
  const held = new Set(model.entries.map((entry) => entry.id));
  return readIds.length + unreadIds.length <= MOST_HELD
    && [...readIds, ...unreadIds].some((id) => !held.has(id));
}

function applyNotification(model, { unread, ...entry }) {
  const clock = model.clock + 1;
  if (holds(model, entry.id)) return { ...model, clock, unread: unread ?? model.unread };
  const entries = [...model.entries];
  let place = entries.length;
  while (place > 0 && !isAtOrBefore(entries[place - 1].cursor, entry.cursor)) place -= 1;
  entries.splice(place, 0, { ...entry, touched: clock });
  return { ...model, clock, entries: entries.slice(-MOST_HELD), unread: unread ?? model.unread };
}

function applyReceipt(model, { action, ids, unread }) {
  const clock = model.clock + 1;
  const entries = changed(model.entries, action, new Set(ids), clock);
  return { ...model, clock, entries, unread: unread ?? model.unread };
}

function changed(entries, action, ids, clock) {
  if (action === "dismissed") return entries.filter((entry) => !ids.has(entry.id));
  return entries.map((entry) =>
    ids.has(entry.id) ? { ...entry, read: action === "read", touched: clock } : entry);
}

function applyGap(model, gap) {
  const same = (other) => other.reason === gap.reason && other.through === gap.through;
  return model.gaps.some(same) ? model : { ...model, gaps: [...model.gaps, gap] };
}

export function withoutGap(model, gap) {
  return { ...model, gaps: model.gaps.filter((other) => other !== gap) };
}

// --- what this page asked for

/** The answer to a request made when the clock showed `asked`; what the stream told since wins. */
export function applyAnswer(model, { action, ids, unread, asked }) {
  const late = new Set(model.entries.filter((entry) => entry.touched > asked).map((entry) => entry.id));
  const meant = new Set(ids.filter((id) => action === "dismissed" || !late.has(id)));
  const entries = changed(model.entries, action, meant, model.clock);
  return { ...model, entries, unread: model.clock === asked ? unread ?? model.unread : model.unread };
}

export function withBusy(model, key, is) {
  const busy = new Set(model.busy);
  if (is) busy.add(key);
  else busy.delete(key);
  return { ...model, busy };
}

// --- what of it is shown

export function withFilter(model, filter) {
  return { ...model, ...filter, shown: PAGE_SIZE };
}

export function withMore(model) {
  return { ...model, shown: model.shown + PAGE_SIZE };
}

export function holds(model, id) {
  return model.entries.some((entry) => entry.id === id);
}

export function matches(model, entry) {
  return (model.category === null || entry.category === model.category)
    && !(model.unreadOnly && entry.read);
}

/** Newest first, at most as many as are to be shown, and how many there are in all. */
export function visible(model) {
  const all = model.entries.filter((entry) => matches(model, entry));
  return { total: all.length, entries: all.slice(-model.shown).reverse() };
}

/** Each category that is there with its number of entries; the chosen one always. */
export function categories(model) {
  const counts = new Map();
  if (model.category !== null) counts.set(model.category, 0);
  for (const { category } of model.entries) {
    if (category) counts.set(category, (counts.get(category) ?? 0) + 1);
  }
  return [...counts].sort(([a], [b]) => a.localeCompare(b));
}

/** The name of whose inbox it is, if an entry tells it. */
export function ownName(model) {
  return model.entries.at(-1)?.to?.name ?? null;
}
