/** A field to search and choose a model in: the combobox of the ARIA patterns, with a list in groups. */
import { make } from "./dom.js";
import { abilities, figures, found, groupOf } from "./models.js";

const LEAST = 240; // pixels of the list
const MOST = 420;

/**
 * Turn `input` and `list` into the picker. `onChoose(model)` is called when a person chooses.
 * Returns {offer(models, operation), choose(id)}: what can be chosen, and showing what is chosen.
 */
export function startPicker(input, list, onChoose) {
  let models = [];
  let operation = "generate";
  let chosen = null;
  let shown = [];
  let active = -1;

  const isOpen = () => !list.hidden;
  const option = (index) => list.querySelector(`#${list.id}-${index}`);
  const rest = () => { input.value = chosen?.name ?? ""; };

  function mark(index) {
    option(active)?.removeAttribute("data-active");
    active = index;
    const marked = option(index);
    if (!marked) return input.removeAttribute("aria-activedescendant");
    marked.dataset.active = "";
    input.setAttribute("aria-activedescendant", marked.id);
    return marked.scrollIntoView({ block: "nearest" });
  }

  function row(model, index) {
    return make("div", {
      id: `${list.id}-${index}`, className: "option", role: "option", "aria-selected": String(model === chosen),
      on: { click: () => take(model) },
    },
    make("span", { className: "option-name" }, model.name), make("span", { className: "option-figures" }, figures(model, operation)),
    make("code", { className: "option-id" }, model.id), make("span", { className: "option-figures" }, abilities(model)));
  }

  function draw(text) {
    shown = found(models, text);
    const groups = new Map();
    shown.forEach((model, index) => {
      const name = groupOf(model);
      if (!groups.has(name)) groups.set(name, []);
      groups.get(name).push(row(model, index));
    });
    list.replaceChildren(...[...groups].map(([name, rows], at) => make("div", { role: "group", "aria-labelledby": `${list.id}-g${at}` },
      make("div", { id: `${list.id}-g${at}`, className: "option-group", role: "presentation" }, name), ...rows)));
    if (shown.length === 0) {
      list.append(make("div", { className: "option none", role: "option", "aria-disabled": "true", "aria-selected": "false" }, operation === "generate" ? "None. Models that only edit are listed once there is a picture to edit." : "None that can do this is called so."));
    }
  }

  /** On a small screen, with its keyboard up, the list would begin where the screen ends. */
  function makeRoom() {
    const below = () => (window.visualViewport?.height ?? window.innerHeight) - input.getBoundingClientRect().bottom - 16;
    if (below() < LEAST) input.closest(".field").scrollIntoView({ block: "start", behavior: "instant" });
    list.style.maxHeight = `${Math.min(MOST, Math.max(LEAST, below()))}px`;
  }

  function open(text = "") {
    draw(text);
    if (list.hidden) makeRoom();
    list.hidden = false;
    input.setAttribute("aria-expanded", "true");
    mark(text ? Math.min(0, shown.length - 1) : shown.indexOf(chosen));
  }

  function close() {
    list.hidden = true;
    active = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
    rest();
  }

  function take(model) {
    chosen = model;
    close();
    onChoose(model);
  }

  input.addEventListener("input", (event) => {
    event.stopPropagation(); // the text is a search, no value of the form yet
    open(input.value);
  });
  input.addEventListener("click", () => {
    if (isOpen()) return;
    input.select();
    open();
  });
  input.addEventListener("blur", close);
  list.addEventListener("pointerdown", (event) => event.preventDefault()); // the field keeps the focus
  input.addEventListener("keydown", (event) => {
    const last = shown.length - 1;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (!isOpen()) return open();
      return mark(event.key === "ArrowDown" ? Math.min(last, active + 1) : Math.max(0, active - 1));
    }
    if (!isOpen()) return undefined;
    if (event.key === "Enter" && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      if (shown[active]) take(shown[active]);
    } else if (event.key === "Escape") {
      event.stopPropagation(); // it closes the list and cancels nothing
      close();
    }
    return undefined;
  });

  return {
    offer(offered, wanted) {
      [models, operation] = [offered, wanted];
      if (isOpen()) open(input.value);
    },
    choose(model) {
      chosen = model;
      if (!isOpen()) rest();
    },
  };
}
