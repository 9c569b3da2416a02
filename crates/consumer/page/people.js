// Owns who the users are: their names by number, and what somebody typed as users.

import { $, h } from "./dom.js";
import { producer, users } from "./api.js";

// What there is to suggest when the producer does not tell.
const KNOWN = [
  { id: 1, name: "Emma" }, { id: 2, name: "Bruno" }, { id: 3, name: "Rick" }, { id: 4, name: "Lena" },
];

let people = KNOWN;

export const everybody = () => people;

export const nameOf = (id) => people.find((person) => person.id === id)?.name ?? null;

export async function loadPeople() {
  if (producer) {
    const answer = await users().catch(() => null);
    if (answer?.users?.length) people = answer.users;
  }
  $("people").replaceChildren(...people.map(({ id, name }) => h("option", { value: String(id) }, name)));
}

/** The user that a text means, by number or by name; null if it means none. */
export function userFrom(text) {
  const word = text.trim();
  if (/^\d{1,16}$/.test(word)) {
    const id = Number(word);
    return id > 0 && Number.isSafeInteger(id) ? id : null;
  }
  const same = (a, b) => a.localeCompare(b, undefined, { sensitivity: "base" }) === 0;
  const named = people.filter((person) => same(person.name, word));
  return named.length === 1 ? named[0].id : null;
}

/** The users that a list with commas means, each once, and the words that mean nobody. */
export function usersFrom(text) {
  const words = text.split(/[,;\n]/).map((word) => word.trim()).filter(Boolean);
  const found = words.map((word) => ({ word, id: userFrom(word) }));
  return {
    ids: [...new Set(found.flatMap(({ id }) => id ?? []))],
    unclear: found.filter(({ id }) => id === null).map(({ word }) => word),
  };
}
