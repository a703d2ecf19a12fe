/** The stage: where a request's picture, progress or error stands. */
import { byId, copyable, facts, make } from "./dom.js";
import { actionsOf, differences, downloadOf, reuse } from "./records.js";
import { compare, view } from "./viewer.js";
import { advisesAnew, costWords, duration, errorAdvice, errorTitle, stateWords } from "./words.js";

const EXAMPLES = [
  "A lighthouse at dusk, long exposure, calm sea",
  "A watercolour fox asleep in autumn leaves",
  "Isometric cutaway of a tiny ramen shop at night",
];

let addresses = [];
let ticking = 0;

/** Say something to screen readers. */
export function announce(text) {
  byId("announce").textContent = text;
}

function show(state, ...nodes) {
  clearInterval(ticking);
  const stage = byId("stage");
  const held = stage.contains(document.activeElement);
  stage.dataset.state = state;
  stage.setAttribute("aria-busy", String(state === "running"));
  byId("stage-body").replaceChildren(...nodes);
  if (held) stage.focus({ preventScroll: true });
}

function ratioOf(size) {
  const match = /^(\d+)x(\d+)$/.exec(size ?? "");
  return match ? Number(match[1]) / Number(match[2]) : 1;
}

/** A frame with crop marks in the proportion of `size`. */
function frame(size, ...nodes) {
  const box = make("div", { className: "frame" }, ...nodes);
  box.style.setProperty("--ratio", ratioOf(size));
  return box;
}

/** Nothing made yet: the empty frame in the chosen proportion, and prompts to begin with. */
export function showEmpty(size, onExample) {
  const examples = EXAMPLES.map((text) =>
    make("button", { type: "button", className: "example", on: { click: () => onExample(text) } }, text));
  show("empty",
    frame(size, make("p", { className: "frame-note" }, "Your picture appears here"),
      make("p", { className: "frame-size" }, (size ?? "").replace("x", " × "))),
    make("div", { className: "examples", role: "group", "aria-label": "Prompts to try" },
      make("p", { className: "hint" }, "Or begin with one of these"), ...examples));
}

/**
 * A request under way since `begun` (milliseconds of the clock). `previewAt(address)` fetches an unfinished picture.
 * Returns a function to call with each sign of progress.
 */
export function showRunning(size, { begun, onCancel, previewAt }) {
  const since = () => duration(Math.max(0, Date.now() - begun) / 1000);
  const state = make("p", { className: "state" }, "Sending");
  const percent = make("span", { className: "percent" });
  const elapsed = make("span", { className: "elapsed" }, since());
  const bar = make("progress", { max: 1, "aria-label": "Progress" });
  const preview = make("img", { alt: "Preview of the unfinished picture", hidden: true });
  const cancel = make("button", { type: "button", id: "cancel", on: { click: onCancel } }, "Cancel");
  show("running", frame(size, make("div", { className: "shimmer" }), preview),
    make("div", { className: "progress" },
      make("div", { className: "progress-line" }, state, percent, elapsed), bar,
      make("div", { className: "actions" }, cancel)));
  cancel.focus({ preventScroll: true });
  ticking = setInterval(() => { elapsed.textContent = since(); }, 100);
  announce("Sending the request");
  return (job) => progress(job, { state, percent, bar, preview, previewAt });
}

function progress(job, { state, percent, bar, preview, previewAt }) {
  const words = stateWords(job);
  const known = job.progress > 0 && job.status !== "queued"; // many providers never tell
  if (known) bar.value = Math.min(1, Math.max(0, job.progress));
  else bar.removeAttribute("value");
  percent.textContent = known ? `${Math.round(bar.value * 100)} %` : "";
  // Quarter steps only: a screen reader that reads every poll is no help.
  const quarter = known ? Math.floor(bar.value * 4) * 25 : 0;
  const spoken = quarter ? `${words}, ${quarter} percent` : words;
  if (byId("announce").textContent !== spoken) announce(spoken);
  state.textContent = words;
  if (job.preview && preview.dataset.of !== job.preview) sharpen(preview, job.preview, previewAt);
}

async function sharpen(preview, address, previewAt) {
  preview.dataset.of = address;
  const blob = await previewAt(address);
  if (!blob || preview.dataset.of !== address) return;
  URL.revokeObjectURL(preview.src);
  preview.src = URL.createObjectURL(blob);
  preview.hidden = false;
}

function pictureOf(record, index, records) {
  if (record.blob) addresses.push(URL.createObjectURL(record.blob));
  const source = record.blob ? addresses.at(-1) : record.url;
  const several = records.length > 1;
  const shown = record.prompt || "A variation";
  const alt = several ? `Picture ${index + 1} of ${records.length}: ${shown}` : shown;
  const image = make("img", { src: source, alt, className: "picture", referrerPolicy: "no-referrer" });
  const failed = make("p", { className: "notice", hidden: true }, "The picture is made, but its address can’t be loaded from here.");
  const enlarge = make("button", {
    type: "button", className: "enlarge", "aria-label": several ? `Enlarge picture ${index + 1}` : "Enlarge", on: { click: () => view(records, index) },
  }, image);
  const holder = frame(record.size, enlarge);
  image.addEventListener("error", () => { failed.hidden = false; });
  image.addEventListener("load", () => {
    // What was really made, also where the answer doesn't tell.
    record.size = `${image.naturalWidth}x${image.naturalHeight}`;
    holder.style.setProperty("--ratio", ratioOf(record.size));
    if (index === 0) byId("real-size").textContent = record.size.replace("x", " × ");
  }, { once: true });
  const actions = make("div", { className: "actions" }, downloadOf(record, source, { small: true }), ...actionsOf(record, { small: true, few: several }));
  return make("figure", {}, holder, failed, make("figcaption", {}, actions));
}

/** A finished request: the pictures, what can be done with them, what was changed, and how it was made. */
export function showResult(records, { seconds, reattached, attempts, cost, costSource }) {
  addresses.forEach((address) => URL.revokeObjectURL(address));
  addresses = [];
  const count = records.length;
  const [first] = records;
  show("done",
    make("div", { className: count > 1 ? "pictures several" : "pictures" }, ...records.map(pictureOf)),
    count > 1 ? make("div", { className: "actions together" },
      make("button", { type: "button", on: { click: () => compare(records.slice(0, 4)) } }, "Compare side by side"),
      make("button", { type: "button", on: { click: () => reuse(first) } }, "Use again")) : "",
    differences(first),
    reattached ? make("p", { className: "hint" }, "Joined a job that was already running; nothing was paid twice.") : "",
    facts([
      ["Time", duration(seconds)],
      ["Cost", costWords(cost, costSource)],
      ["Size", make("span", { id: "real-size" }, first.size.replace("x", " × ") || "…")],
      ["Seed", count > 1 && first.seed !== null ? `${first.seed} and following` : first.seed],
      ["Provider", first.provider],
      ["Jobs started", attempts > count ? attempts : null], // more than pictures: some were begun anew
      ["Provider’s model", first.route ? make("code", {}, first.route) : null],
      ["Request id", first.requestId ? copyable(first.requestId, "the request id") : null],
    ]));
  const differs = first.mapped || first.dropped || first.fallback ? ", not quite as asked; see below" : "";
  announce(`${count > 1 ? `${count} pictures` : "Picture"} ready after ${duration(seconds)}${differs}`);
}

function retryButton(error, onRetry) {
  const button = make("button", { type: "button", className: "primary", on: { click: onRetry } }, "Try again");
  let left = Math.ceil(error.retryAfterS);
  const tell = () => {
    button.disabled = left > 0;
    button.textContent = left > 0 ? `Try again in ${left} s` : "Try again";
    if (left <= 0) clearInterval(ticking);
    left -= 1;
  };
  if (left > 0) {
    ticking = setInterval(tell, 1000);
    tell();
  }
  return button;
}

/**
 * A failed request: what happened, what to do, and what to quote when asking for help. `onRetry` repeats the call,
 * `onAnew` makes a new one, `onKey` leads to the field for the key.
 */
export function showError(error, { onRetry, onAnew, onKey }) {
  const holder = make("div", { className: "actions" });
  if (error.status === 401) {
    holder.append(make("button", { type: "button", className: "primary", on: { click: onKey } }, "Enter the key"));
  } else if (error.retry) holder.append(retryButton(error, onRetry));
  else if (advisesAnew(error)) holder.append(make("button", { type: "button", on: { click: onAnew } }, "Generate again"));
  show("error",
    make("div", { className: "failure" },
      make("h3", {}, errorTitle(error)),
      make("p", { className: "failure-message" }, error.message),
      make("p", { className: "failure-advice" }, errorAdvice(error)),
      holder.childElementCount ? holder : "",
      facts([
        ["Status", error.status || null],
        ["Code", error.code ? make("code", {}, error.code) : null],
        ["Parameter", error.param ? make("code", {}, error.param) : null],
        ["Request id", error.requestId ? copyable(error.requestId, "the request id") : null],
      ])));
  announce(`${errorTitle(error)}. ${error.message}`);
}

/** A request that was cancelled here. */
export function showCancelled(onRetry) {
  show("cancelled", make("div", { className: "failure calm" },
    make("h3", {}, "Cancelled"),
    make("p", {}, "The job was abandoned. If the provider had already begun, it may still bill it."),
    make("div", { className: "actions" },
      make("button", { type: "button", on: { click: onRetry } }, "Start it again"))));
  announce("Cancelled");
}
