/** The dialog in which a key is made or changed. Its secret is shown once and kept nowhere. */
import { changeKey, changesOf } from "./accounts.js";
import { byId, copies, make } from "./dom.js";
import { moment } from "./figures.js";

const LIST = { read: (text) => text.split(",").map((part) => part.trim()).filter(Boolean), write: (value) => (value ?? []).join(", ") };
const TEXT = { read: (text) => text.trim(), write: (value) => value ?? "" };
const FLAG = { read: (text) => text === "yes", write: (value) => (value ? "yes" : "") };
const NUMBER = { read: (text) => Number(text) || 0, write: (value) => (value ? String(value) : "") };

const FIELDS = [
  { name: "name", label: "Name", kind: TEXT, hint: "Of a person or an app." },
  { name: "owner", label: "Owner", kind: TEXT, hint: "Several keys may share one, and its limits." },
  { name: "budget", label: "Dollars", kind: LIST, hint: "Such as 5/month, 1/day; also week and total. Empty: no limit." },
  { name: "pictures", label: "Pictures", kind: LIST, hint: "Such as 100/day. Empty: no limit." },
  { name: "per_minute", label: "Requests a minute", kind: NUMBER, hint: "Empty: any number." },
  { name: "at_once", label: "Requests at once", kind: NUMBER, hint: "Empty: any number." },
  { name: "models", label: "Models", kind: LIST, hint: "Such as dall-e-*, gpt-image-1. Empty: all." },
  { name: "expires", label: "Expires", kind: TEXT, hint: "Such as 90d or 2027-01-31 (UTC). Empty: never." },
];
const USER_FIELDS = [
  { name: "count_by", label: "Tell end users apart by", kind: TEXT, options: [["", "nothing"], ["user", "the user parameter"], ["x-openwebui-user-id", "x-openwebui-user-id"]] },
  { name: "show_users", label: "Show them", kind: FLAG, options: [["", "as digests"], ["yes", "by their names"]] },
  { name: "per_user_budget", label: "Dollars for each", kind: LIST, hint: "Such as 1/month." },
  { name: "per_user_pictures", label: "Pictures for each", kind: LIST, hint: "Such as 20/day." },
];
const GRACES = [["24h", "for another day"], ["7d", "for another week"], ["0s", "no longer"]];

const dialog = byId("editor");

function input({ name, kind, options }, value) {
  const about = { id: `editor-${name}`, name, "aria-describedby": `editor-${name}-hint` };
  if (options) {
    const select = make("select", about, ...options.map(([is, words]) => make("option", { value: is }, words)));
    select.value = kind.write(value);
    return select;
  }
  const more = kind === NUMBER ? { type: "number", min: "0", step: "1", inputMode: "numeric" } : { spellcheck: false, autocapitalize: "off" };
  return make("input", { ...about, ...more, autocomplete: "off", value: kind.write(value) });
}

const field = (one, key) => make("div", { className: "field" },
  make("label", { for: `editor-${one.name}` }, one.label),
  input(one, key?.[one.name]),
  make("p", { className: "hint", id: `editor-${one.name}-hint` }, one.hint ?? ""));

function clearMarks(form) {
  form.querySelectorAll(".field-error").forEach((note) => note.remove());
  form.querySelectorAll("[aria-invalid]").forEach((one) => {
    one.removeAttribute("aria-invalid");
    one.setAttribute("aria-describedby", `${one.id}-hint`);
  });
}

/** Show what was wrong, at the field that it is about. */
function mark(form, error) {
  const at = error.param && form.elements[error.param];
  const note = make("p", { className: "field-error", id: "editor-error", role: "alert" }, error.message);
  if (!at) {
    form.querySelector(".editor-said").replaceChildren(note);
    return;
  }
  at.closest("details")?.setAttribute("open", "");
  at.setAttribute("aria-invalid", "true");
  at.setAttribute("aria-describedby", `editor-error ${at.id}-hint`);
  at.after(note);
  at.focus();
}

/** What the form says and the key doesn't yet. */
function changed(form, key) {
  const found = {};
  for (const { name, kind } of [...FIELDS, ...USER_FIELDS]) {
    const { value } = form.elements[name];
    if (value.trim() !== kind.write(key?.[name])) found[name] = kind.read(value);
  }
  return found;
}

function showSecret(title, body, said) {
  byId("editor-title").textContent = title;
  const copy = make("button", { type: "button", className: "primary" }, "Copy");
  const code = make("code", { role: "group", tabIndex: 0, "aria-label": "The new secret" }, body.key);
  const done = make("button", { type: "button", className: "quiet", on: { click: () => dialog.close() } }, "Done");
  byId("editor-body").replaceChildren(
    make("p", { className: "notice" }, "Copy it now. It is shown this once; only its digest is kept."),
    make("div", { className: "joined secret" }, code, copy),
    make("p", { className: "hint" }, said),
    make("div", { className: "actions" }, done));
  copies(copy, () => body.key);
  copy.focus();
}

/** A button that acts when it is pressed a second time. */
function twice(words, again, run) {
  const button = make("button", { type: "button", className: "quiet danger" }, words);
  button.addEventListener("click", () => {
    if (button.textContent === again) run();
    else button.textContent = again;
  });
  button.addEventListener("blur", () => { button.textContent = words; });
  return button;
}

function danger(key, act) {
  const grace = make("select", { id: "editor-grace" }, ...GRACES.map(([value, words]) => make("option", { value }, words)));
  const rotate = twice("New secret", "Really a new secret?", () => act(`${encodeURIComponent(key.id)}/regenerate`, { grace_period: grace.value }, (body) =>
    showSecret(`New secret of ${key.name}`, body, body.old_until ? `The old one works until ${moment(body.old_until)} UTC.` : "The old one works no longer.")));
  return make("div", { className: "editor-more" },
    make("div", { className: "field" }, make("label", { for: "editor-grace" }, "With a new secret the old one works"),
      make("div", { className: "joined" }, grace, rotate)),
    twice("Delete the key", `Really delete ${key.name}?`, () => act("delete", { keys: [key.id] }, () => dialog.close(), `Deleted ${key.name}.`)));
}

function history(admin, key) {
  const list = make("ul", { className: "history" });
  const details = make("details", {}, make("summary", {}, "What was done to it"), list);
  details.addEventListener("toggle", async () => {
    if (!details.open || list.children.length) return;
    const changes = await changesOf(admin, key.id).catch((error) => [{ at: "", who: "", change: error.message }]);
    list.replaceChildren(...changes.map(({ at, who, change }) => make("li", {}, make("b", {}, at ? `${moment(at)} UTC` : ""), ` ${who} `, make("code", {}, change))));
  });
  return details;
}

/** Open the dialog: for a new key, or for `key`. `admin`: the admin key. `done(said)` is called after each change. */
export function edit(admin, key, done) {
  const save = make("button", { type: "submit", className: "primary" }, key ? "Save" : "Make the key");
  const users = make("details", { open: Boolean(key?.count_by) }, make("summary", {}, "End users behind this key"),
    make("div", { className: "editor-fields" }, ...USER_FIELDS.map((one) => field(one, key))));
  const form = make("form", { className: "editor", noValidate: true, autocomplete: "off", "aria-labelledby": "editor-title" },
    make("div", { className: "editor-fields" }, ...FIELDS.map((one) => field(one, key))),
    users,
    make("div", { className: "editor-said" }),
    make("div", { className: "actions" }, save));
  const act = async (action, body, then, said) => {
    clearMarks(form);
    save.disabled = true;
    try {
      then(await changeKey(admin, action, body));
      done(said);
    } catch (error) {
      mark(form, error);
    } finally {
      save.disabled = false;
    }
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const body = changed(form, key);
    if (key && Object.keys(body).length === 0) dialog.close();
    else if (key) act("update", { key: key.id, ...body }, () => dialog.close(), `Changed ${key.name}.`);
    else if (!body.name) mark(form, { param: "name", message: "Give the key a name." });
    else act("generate", body, (made) => showSecret(`The key of ${made.name}`, made, "Clients send it as “Authorization: Bearer …”."));
  });
  byId("editor-title").textContent = key ? `Change ${key.name}` : "New key";
  byId("editor-body").replaceChildren(form, ...(key ? [danger(key, act), history(admin, key)] : []));
  dialog.showModal();
  form.elements.name.focus();
}

byId("editor-close").addEventListener("click", () => dialog.close());
// A secret must not stay in the page.
dialog.addEventListener("close", () => byId("editor-body").replaceChildren());
