/** Limits as bars: what of them is spent, reserved, unknown, and left. */
import { amount, day, dollars, moment, period, pictures } from "./figures.js";
import { make } from "./dom.js";

const PARTS = ["spent", "reserved", "unknown"];

/** Whose limit it is, where that isn't the key whose card it stands on. */
function whose({ scope, owner }) {
  if (scope === "service") return "The whole service: ";
  return scope === "owner" ? `All keys of ${owner}: ` : "";
}

function bar(limit, label) {
  const whole = Math.max(Number(limit.limit), PARTS.reduce((sum, part) => sum + Number(limit[part]), 0)) || 1;
  const parts = PARTS.filter((part) => Number(limit[part]) > 0).map((part) => {
    const piece = make("span", { className: part });
    piece.style.width = `${(100 * Number(limit[part])) / whole}%`;
    return piece;
  });
  return make("div", { className: "bar", role: "img", "aria-label": label }, ...parts);
}

/** One limit of a key, an owner or the service. */
export function limitBar(limit) {
  const { unit } = limit;
  const name = `${amount(limit.limit, unit)} ${period(limit.period)}`;
  const left = `${amount(limit.remaining, unit)} left`;
  const used = PARTS.filter((part) => Number(limit[part]) > 0).map((part) => `${amount(limit[part], unit)} ${part}`);
  const resets = limit.resets ? `resets ${day(limit.resets)}` : "never resets";
  const raised = limit.raised_by ? `, ${amount(limit.raised_by, unit)} of it until ${moment(limit.raised_until)}` : "";
  return make("div", { className: "limit", "data-out": String(Number(limit.remaining) <= 0) },
    make("p", { className: "limit-line" }, make("span", {}, `${whose(limit)}${name}${raised}`), make("b", {}, left)),
    bar(limit, `${whose(limit)}${name}: ${[...used, left].join(", ")}`),
    make("p", { className: "hint" }, [...(used.length ? used : ["nothing used"]), resets].join(" · ")));
}

/** The sums of a period: spent large, then pictures, reserved and unknown. */
export function sumCard(title, when, sums) {
  const part = (name, text, count, words) => make("div", { className: `sum ${name}`, "data-some": String(Number(text) > 0 || count > 0) },
    make("dt", {}, make("span", { className: `swatch ${name}` }), words), make("dd", {}, dollars(text), make("span", { className: "soft" }, pictures(count))));
  return make("section", { className: "card sum-card", "aria-label": title },
    make("h2", {}, title, make("span", { className: "soft" }, when)),
    make("dl", {},
      part("spent", sums.spent, sums.pictures, "Spent"),
      part("reserved", sums.reserved, sums.reserved_pictures, "Reserved"),
      part("unknown", sums.unknown, sums.unknown_pictures, "Unknown")));
}
