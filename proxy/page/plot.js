/** Stacked bars, one for each day, drawn as SVG at the size of their place, so that letters keep theirs. */
import { make } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 230;
const TOP = 10;
const BOTTOM = 26;
const LEFT = 58;
const RIGHT = 20;
const LABEL_PX = 58; // room for "21 Nov"
const WIDEST_BAR = 44;
const STEPS = [1, 2, 3, 4, 6, 8, 10];
const NAMED = 5; // series of their own; all others together are one more

function draw(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** The end of the axis: a round number not below `most`, even for whole numbers, which half of it must be too. */
function roundUp(most, whole) {
  if (most <= 0) return whole ? 2 : 1;
  const power = 10 ** Math.floor(Math.log10(most));
  const found = STEPS.map((step) => step * power).find((end) => end >= most * 0.9999);
  return whole ? Math.max(2, Math.ceil(found / 2) * 2) : found;
}

/**
 * Sum rows into series: [{name, values, total}], the largest first, values in the order of `days`; the many small ones
 * become one. `nameOf(row)` names a row's series, `valueOf(row)` is its height.
 */
export function seriesOf(rows, days, nameOf, valueOf) {
  const at = new Map(days.map((day, index) => [day, index]));
  const found = new Map();
  for (const row of rows) {
    if (!at.has(row.day)) continue;
    const name = nameOf(row);
    if (!found.has(name)) found.set(name, { name, values: days.map(() => 0), total: 0 });
    const one = found.get(name);
    one.values[at.get(row.day)] += valueOf(row);
    one.total += valueOf(row);
  }
  const all = [...found.values()].filter((one) => one.total > 0).sort((one, other) => other.total - one.total);
  if (all.length <= NAMED + 1) return all;
  const rest = all.slice(NAMED);
  return [...all.slice(0, NAMED), {
    name: `${rest.length} others`,
    values: days.map((_, index) => rest.reduce((sum, one) => sum + one.values[index], 0)),
    total: rest.reduce((sum, one) => sum + one.total, 0),
  }];
}

function axis(end, y, width, shown) {
  return [0, end / 2, end].flatMap((value) => [
    draw("line", { class: value ? "grid" : "ground", x1: LEFT, x2: width, y1: y(value), y2: y(value) }),
    draw("text", { x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" }, shown(value)),
  ]);
}

function picture(width, { days, series, label, shown, dayName, whole }) {
  const sums = days.map((_, index) => series.reduce((sum, one) => sum + one.values[index], 0));
  const end = roundUp(Math.max(0, ...sums), whole);
  const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / end);
  const step = (width - LEFT - RIGHT) / days.length;
  const bar = Math.max(2, Math.min(WIDEST_BAR, step * 0.72));
  const every = Math.ceil(LABEL_PX / step);
  const parts = days.flatMap((day, index) => {
    const x = LEFT + step * (index + 0.5);
    let below = 0;
    const stack = series.flatMap((one, number) => {
      const value = one.values[index];
      if (!value) return [];
      const from = below;
      below += value;
      const title = draw("title", {}, `${dayName(day)}: ${one.name} ${shown(value)}`);
      return [draw("rect", { class: `series-${number}`, x: x - bar / 2, width: bar, y: y(below), height: Math.max(1, y(from) - y(below)) }, title)];
    });
    // Counted from today, so that the newest day has its name.
    const named = (days.length - 1 - index) % every === 0;
    return named ? [...stack, draw("text", { x, y: HEIGHT - 6, "text-anchor": "middle" }, dayName(day))] : stack;
  });
  return draw("svg", { class: "plot", role: "img", "aria-label": label, width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}` },
    ...axis(end, y, width, shown), ...parts);
}

/** Draw into `holder` what `told` says, and again whenever its width changes: {days, series, label, shown, dayName, whole}. */
export function startPlot(holder) {
  let told = null;
  const frame = make("div", { className: "plot-frame" });
  const legend = make("ul", { className: "swatches" });
  holder.replaceChildren(frame, legend);
  const redraw = () => {
    const width = Math.floor(frame.clientWidth);
    if (told && width > LEFT) frame.replaceChildren(picture(width, told));
  };
  new ResizeObserver(redraw).observe(frame);
  return (next) => {
    told = next;
    redraw();
    legend.replaceChildren(...told.series.map((one, number) => make("li", {},
      make("span", { className: `swatch series-${number}` }), make("span", { className: "name" }, one.name), make("span", { className: "soft" }, told.shown(one.total)))));
  };
}
