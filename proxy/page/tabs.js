/** Tabs by the ARIA pattern: arrows move, Home and End jump, one tab stop. */
import { copies, make } from "./dom.js";

/**
 * Fill `holder` with tabs. `pages` is [{name, id, draw()}], where draw returns nodes for the panel.
 * Returns a function that redraws every panel.
 */
export function tabs(holder, label, pages) {
  const list = make("div", { className: "tabs", role: "tablist", "aria-label": label });
  const panels = pages.map((page) => make("div", {
    id: `${page.id}-panel`, role: "tabpanel", "aria-labelledby": `${page.id}-tab`, tabIndex: 0, className: "panel",
  }));
  const buttons = pages.map((page) => make("button", {
    id: `${page.id}-tab`, type: "button", role: "tab", "aria-controls": `${page.id}-panel`,
  }, page.name));

  function choose(index, focus) {
    buttons.forEach((button, at) => {
      button.setAttribute("aria-selected", String(at === index));
      button.tabIndex = at === index ? 0 : -1;
      panels[at].hidden = at !== index;
    });
    if (focus) buttons[index].focus();
  }

  list.addEventListener("keydown", (event) => {
    const at = buttons.indexOf(document.activeElement);
    const last = buttons.length - 1;
    const target = { ArrowRight: at === last ? 0 : at + 1, ArrowLeft: at === 0 ? last : at - 1, Home: 0, End: last };
    if (!(event.key in target)) return;
    event.preventDefault();
    choose(target[event.key], true);
  });
  buttons.forEach((button, index) => button.addEventListener("click", () => choose(index, false)));
  list.append(...buttons);
  holder.replaceChildren(list, ...panels);
  choose(0, false);
  const redraw = () => pages.forEach((page, index) => panels[index].replaceChildren(...page.draw()));
  redraw();
  return redraw;
}

/** A block of code with its copy button. */
export function codeBlock(text, what) {
  const button = make("button", { type: "button", className: "quiet small", "aria-label": `Copy ${what}` }, "Copy");
  const block = make("div", { className: "code" },
    make("pre", { tabIndex: 0, role: "group", "aria-label": what }, make("code", {}, text)), button);
  copies(button, () => text);
  return block;
}
