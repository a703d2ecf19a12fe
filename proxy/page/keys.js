/** The keys with what is left of their limits; with a plain key, its own limits. */
import { limitBar } from "./bars.js";
import { byId, make } from "./dom.js";
import { date, dollars, moment, pictures } from "./figures.js";

const MANY = 8; // from here on a field to search in is worth its room
const COUNTED = { user: "the user parameter", "x-openwebui-user-id": "x-openwebui-user-id" };

const badge = (text, kind) => make("span", { className: `badge ${kind}` }, text);

function badges(key) {
  const expires = key.expires ? Date.parse(key.expires) : null;
  return [
    key.disabled ? badge("Disabled", "bad") : null,
    expires !== null && expires <= Date.now() ? badge("Expired", "bad") : null,
    expires !== null && expires > Date.now() ? badge(`Until ${date(key.expires)}`, "") : null,
    key.old_until && Date.parse(key.old_until) > Date.now() ? badge(`Old secret works until ${moment(key.old_until)}`, "") : null,
  ];
}

function terms(key) {
  return [
    key.tail ? `ends in ${key.tail}` : null,
    key.owner ? `owner ${key.owner}` : null,
    key.per_minute ? `${key.per_minute} a minute` : null,
    key.at_once ? `${key.at_once} at once` : null,
    key.models?.length ? `only ${key.models.join(", ")}` : null,
    key.count_by ? `end users by ${COUNTED[key.count_by] ?? key.count_by}` : null,
    key.per_user_budget?.length ? `each $${key.per_user_budget.join(", $")}` : null,
    key.per_user_pictures?.length ? `each ${key.per_user_pictures.join(", ")} pictures` : null,
  ].filter(Boolean).join(" · ");
}

/** This month of a key in a line; `row` is its row of the usage, or null. */
function used(row) {
  if (!row) return "Nothing used this month";
  const more = [
    Number(row.reserved) || row.reserved_pictures ? `${dollars(row.reserved)} reserved` : null,
    Number(row.unknown) || row.unknown_pictures ? `${dollars(row.unknown)} unknown` : null,
  ].filter(Boolean);
  return [`${dollars(row.spent)} for ${pictures(row.pictures)} this month`, ...more].join(" · ");
}

function card(key, row, actions) {
  const about = terms(key);
  const limits = (key.limits ?? []).filter((limit) => limit.scope === "key");
  return make("li", { className: "card key", "data-key": key.id ?? "", "data-words": `${key.name} ${key.owner ?? ""}`.toLowerCase() },
    make("div", { className: "key-head" },
      make("h3", {}, make("span", { className: "name" }, key.name), ...badges(key)),
      actions ? make("div", { className: "actions" }, ...actions) : null),
    about ? make("p", { className: "hint" }, about) : null,
    make("p", {}, used(row)),
    ...limits.map(limitBar),
    key.limits && limits.length === 0 ? make("p", { className: "hint" }, "No budget.") : null);
}

/** The limits that several keys share. */
function sharedCard(limits) {
  const own = limits.filter((limit) => limit.scope !== "key");
  return own.length ? [make("li", { className: "card key shared" }, ...own.map(limitBar))] : [];
}

/** The name under which the ledger counts callers without a key. */
export const caller = (name) => name || "no key";

/** Draw all keys, for the admin. `limits`: of the service and of owners; `rows`: this month's usage by key; `on`: {change(key), disable(key)}. */
export function drawKeys(keys, limits, rows, on) {
  const named = new Map(rows.map((row) => [row.key, row]));
  const sorted = [...keys].sort((one, other) => one.name.localeCompare(other.name));
  const button = (key, words, run) => make("button", { type: "button", className: "quiet small", "aria-label": `${words} ${key.name}`, on: { click: () => run(key) } }, words);
  const others = rows.filter((row) => !keys.some((key) => key.name === row.key));
  byId("keys-title").textContent = "Keys";
  byId("keys-hint").textContent = keys.length ? `${keys.length} made here or with “images-proxy keys”. ${others.length ? "Callers without one of them stand at the end." : ""}`
    : "None made so far. One for each person or app lets you see, and limit, who spends what.";
  byId("keys-list").replaceChildren(
    ...sharedCard(limits),
    ...sorted.map((key) => card(key, named.get(key.name), [
      button(key, "Change", on.change),
      button(key, key.disabled ? "Enable" : "Disable", on.disable),
    ])),
    ...others.map((row) => card({ name: caller(row.key) }, row, null)));
  byId("keys-tools").hidden = sorted.length + others.length <= MANY;
  filter();
}

/** Draw the limits of a plain key. */
export function drawOwn(own) {
  byId("keys-title").textContent = "What is left";
  byId("keys-hint").textContent = own.limits.length ? "" : "No budget limits what is spent here.";
  byId("keys-list").replaceChildren(
    ...sharedCard(own.limits),
    ...(own.name ? [card({ ...own, per_user_budget: null, per_user_pictures: null }, own, null)] : []));
  byId("keys-tools").hidden = true;
}

function filter() {
  const words = byId("keys-tools").hidden ? "" : byId("keys-search").value.trim().toLowerCase();
  for (const item of byId("keys-list").children) item.hidden = !(item.dataset.words ?? "").includes(words);
}

byId("keys-search").addEventListener("input", filter);
