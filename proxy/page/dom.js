/** Building the page from data. Text always enters as text, never as HTML. */

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/**
 * A new element. `properties` are DOM properties; `data-*`, `aria-*` and `role` become attributes, `on` holds
 * listeners. Children may be nodes, strings or null.
 */
export function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    } else if (/^(data-|aria-|role$|for$)/.test(name)) node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** A list of terms and what they are; entries without a value are left out. */
export function facts(entries) {
  const rows = entries.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return make("dl", { className: "facts" }, ...rows.map(([term, value]) =>
    make("div", {}, make("dt", {}, term), make("dd", {}, value))));
}

/** Put `text` on the clipboard; also on plain http, where browsers hide the clipboard interface. */
async function toClipboard(text) {
  if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
  const holder = make("textarea", { value: text, className: "unseen", readOnly: true, "aria-hidden": "true" });
  const back = document.activeElement;
  document.body.append(holder);
  holder.select();
  const copied = document.execCommand("copy");
  holder.remove();
  back?.focus();
  if (!copied) throw new Error("the browser refused");
}

/** Make `button` copy what `read()` returns and say whether it worked. */
export function copies(button, read) {
  const label = button.textContent;
  const said = make("span", { className: "unseen", role: "status" });
  button.after(said);
  let timer = 0;
  button.addEventListener("click", async () => {
    let outcome = "Copied";
    try {
      await toClipboard(read());
    } catch {
      outcome = "Not copied";
    }
    button.textContent = outcome;
    said.textContent = outcome === "Copied" ? "Copied to the clipboard" : "Copying failed; select the text instead";
    clearTimeout(timer);
    timer = setTimeout(() => {
      button.textContent = label;
      said.textContent = "";
    }, 1600);
  });
  return button;
}

/** `text` in code letters with a button that copies it. */
export function copyable(text, what) {
  const button = make("button", { type: "button", className: "quiet small", "aria-label": `Copy ${what}` }, "Copy");
  const line = make("span", { className: "copyable" }, make("code", {}, text), button);
  copies(button, () => text);
  return line;
}

/** Keep a value in this tab, until it closes; null forgets it. Without storage it lasts for this page only. */
export function remember(name, value) {
  try {
    if (value === null) sessionStorage.removeItem(name);
    else sessionStorage.setItem(name, JSON.stringify(value));
  } catch {
    // storage is off or full
  }
}

/** What this tab keeps under a name, or null. */
export function recall(name) {
  try {
    return JSON.parse(sessionStorage.getItem(name));
  } catch {
    return null;
  }
}

let telling = 0;

/** Say something in passing, for a few seconds, to eyes and screen readers. */
export function tell(text) {
  const toast = byId("toast");
  toast.textContent = text;
  toast.dataset.shown = "true";
  clearTimeout(telling);
  telling = setTimeout(hush, 6000);
}

/** Take back what was said in passing. */
export function hush() {
  byId("toast").dataset.shown = "false";
}
