/** Figures as people read them. Dollars come as decimal text; days and moments are UTC. */

const DAY_MS = 86_400_000;
const PERIODS = { day: "a day", week: "a week", month: "a month", total: "in all" };

/** Dollars, to four places at least as exact as a price: `0.0025` → `$0.0025`, `12` → `$12.00`. */
export function dollars(text) {
  const amount = Number(text);
  if (amount > 0 && amount < 0.0001) return "< $0.0001";
  const digits = amount >= 1000 ? 2 : 4;
  return `$${amount.toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: digits })}`;
}

/** `1 picture`, `1,200 pictures`. */
export function pictures(count) {
  return `${Number(count).toLocaleString("en-US")} picture${Number(count) === 1 ? "" : "s"}`;
}

/** An amount in a limit's unit. */
export const amount = (text, unit) => (unit === "dollars" ? dollars(text) : pictures(text));

/** `a month` of a limit's period. */
export const period = (name) => PERIODS[name] ?? name;

function written(text, options) {
  const at = new Date(text);
  return Number.isNaN(at.getTime()) ? String(text) : new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", ...options }).format(at);
}

/** `21 Nov` of a day or moment. */
export const day = (text) => written(text, { day: "numeric", month: "short" });

/** `21 Nov 2026`. */
export const date = (text) => written(text, { day: "numeric", month: "short", year: "numeric" });

/** `November 2026`. */
export const month = (text) => written(text, { month: "long", year: "numeric" });

/** `21 Nov, 12:04`. */
export const moment = (text) => written(text, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

/** `count` days up to and with `last`, as `2026-11-21`. */
export function daysUpTo(last, count) {
  const end = Date.parse(`${last}T00:00:00Z`);
  return Array.from({ length: count }, (_, index) => new Date(end - (count - 1 - index) * DAY_MS).toISOString().slice(0, 10));
}
