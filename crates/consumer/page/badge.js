// Owns what the browser's tab shows: the title, and the icon with the number of unread entries.

import { $ } from "./dom.js";

const BELL = "M32 12a4 4 0 0 0-4 4v.7C21.6 18.4 17 24.2 17 31v8.5l-3.7 5.5A2 2 0 0 0 15 48h34a2 2 0 0 0 1.7-3L47 39.5V31c0-6.8-4.6-12.6-11-14.3V16a4 4 0 0 0-4-4zm-6 39a6 6 0 0 0 12 0z";

let drawn = null;

export function showBadge(unread, owner) {
  const name = owner ? `Inbox - ${owner}` : "Inbox";
  const title = unread > 0 ? `(${unread}) ${name}` : name;
  if (document.title !== title) document.title = title;
  const label = unread > 99 ? "99+" : unread > 0 ? String(unread) : "";
  if (label !== drawn) setIcon(label);
  drawn = label;
}

function setIcon(label) {
  const link = $("favicon");
  const plain = label === "";
  link.type = plain ? "image/svg+xml" : "image/png";
  link.href = plain ? "/page/icon.svg" : draw(label);
}

function draw(label) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 64;
  const context = canvas.getContext("2d");
  if (!context) return "/page/icon.svg";
  context.fillStyle = "#4f46e5";
  context.beginPath();
  if (context.roundRect) context.roundRect(0, 0, 64, 64, 16);
  else context.rect(0, 0, 64, 64);
  context.fill();
  context.fillStyle = "#fff";
  context.fill(new Path2D(BELL));
  const width = label.length === 1 ? 38 : label.length === 2 ? 46 : 58;
  context.fillStyle = "#dc2626";
  context.beginPath();
  if (context.roundRect) context.roundRect(64 - width, 26, width, 38, 19);
  else context.rect(64 - width, 26, width, 38);
  context.fill();
  context.fillStyle = "#fff";
  context.font = "bold 30px system-ui, sans-serif";
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText(label, 64 - width / 2, 46);
  return canvas.toDataURL("image/png");
}
