// Owns the single-key shortcuts, which rest while somebody types or a dialog is open.

const TYPED_INTO = "input, textarea, select, [contenteditable]";

/** `actions` has a function for each key; one that answers false lets the key do its usual work. */
export function listenForKeys(actions) {
  document.addEventListener("keydown", (event) => {
    const action = actions[event.key];
    if (!action || event.defaultPrevented || event.isComposing) return;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest?.(TYPED_INTO) || document.querySelector("dialog[open]")) return;
    if (action(event) !== false) event.preventDefault();
  });
}
