// Owns the few shorthands for building and finding elements.

export const $ = (id) => document.getElementById(id);

const SVG = "http://www.w3.org/2000/svg";

/** An element with properties (`class`, `on…` and `data-…` included) and children. */
export function h(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key in element && key !== "list") element[key] = value;
    else element.setAttribute(key === "className" ? "class" : key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** Writing what is there already would make screen readers say it again. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** A disabled button loses the focus; this one keeps it, and its clicks are to be ignored. */
export function setBusy(element, busy) {
  if (busy) element.setAttribute("aria-disabled", "true");
  else element.removeAttribute("aria-disabled");
}

export const isBusy = (element) => element.getAttribute("aria-disabled") === "true";

export function avatar({ id, name }) {
  const initial = [...(name ?? "").trim()][0] ?? "#";
  const tone = Number.isSafeInteger(id) ? id % 10 : 0;
  return h("span", { className: `avatar tone-${tone}`, "aria-hidden": "true" }, initial.toLocaleUpperCase());
}
