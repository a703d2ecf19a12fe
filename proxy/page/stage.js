/** The stage: where a request's picture, progress or error stands. */
import { byId, copyable, facts, make } from "./dom.js";
import { blobOf, fileName } from "./pictures.js";
import { droppedSentence, duration, errorAdvice, errorTitle, fallbackSentence, mappedParts, stateWords } from "./words.js";

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

/** A request under way. Returns a function to call with each sign of progress. */
export function showRunning(size, onCancel) {
  const state = make("p", { className: "state" }, "Sending");
  const percent = make("span", { className: "percent" });
  const elapsed = make("span", { className: "elapsed" }, duration(0));
  const bar = make("progress", { max: 1, "aria-label": "Progress" });
  const preview = make("img", { alt: "Preview of the unfinished picture", hidden: true, referrerPolicy: "no-referrer" });
  const cancel = make("button", { type: "button", id: "cancel", on: { click: onCancel } }, "Cancel");
  show("running", frame(size, make("div", { className: "shimmer" }), preview),
    make("div", { className: "progress" },
      make("div", { className: "progress-line" }, state, percent, elapsed), bar,
      make("div", { className: "actions" }, cancel)));
  cancel.focus({ preventScroll: true });
  const started = performance.now();
  ticking = setInterval(() => { elapsed.textContent = duration((performance.now() - started) / 1000); }, 100);
  announce("Sending the request");
  return (job) => progress(job, { state, percent, bar, preview });
}

function progress(job, { state, percent, bar, preview }) {
  const words = stateWords(job);
  const known = typeof job.progress === "number" && job.status !== "queued";
  if (known) bar.value = Math.min(1, Math.max(0, job.progress));
  else bar.removeAttribute("value");
  percent.textContent = known ? `${Math.round(bar.value * 100)} %` : "";
  // Quarter steps only: a screen reader that reads every poll is no help.
  const quarter = known ? Math.floor(bar.value * 4) * 25 : 0;
  const spoken = quarter ? `${words}, ${quarter} percent` : words;
  if (byId("announce").textContent !== spoken) announce(spoken);
  state.textContent = words;
  if (job.preview && preview.getAttribute("src") !== job.preview) {
    preview.src = job.preview;
    preview.hidden = false;
  }
}

function pictureOf(picture, index, count, request) {
  const blob = picture.b64 ? blobOf(picture.b64) : null;
  const source = blob ? URL.createObjectURL(blob) : picture.url;
  if (blob) addresses.push(source);
  const alt = count > 1 ? `Picture ${index + 1} of ${count}: ${request.prompt}` : request.prompt;
  const image = make("img", { src: source, alt, className: "picture", referrerPolicy: "no-referrer" });
  const failed = make("p", { className: "notice", hidden: true }, "The picture is made, but its address can’t be loaded from here.");
  image.addEventListener("error", () => { failed.hidden = false; });
  const own = blob || new URL(source, location.href).origin === location.origin;
  const link = make("a", {
    className: "button small", href: source, rel: "noopener noreferrer", target: own ? "" : "_blank",
    download: own ? fileName(request.prompt, index, blob?.type ?? "") : "",
    "aria-label": `${own ? "Download" : "Open"} picture ${index + 1}`,
  }, own ? "Download" : "Open original");
  if (own && !blob) link.download = source.split("/").pop(); // its own name has the right ending
  const size = request.size ?? "1024x1024";
  return make("figure", {}, frame(size, image), failed, make("figcaption", {}, link));
}

function differences(result) {
  const mapped = mappedParts(result.mapped).map((part) => make("li", {}, make("b", {}, part.name),
    ...(part.to ? [" ", make("code", {}, part.from), " became ", make("code", {}, part.to)] : [])));
  const dropped = droppedSentence(result.dropped);
  const fallback = fallbackSentence(result.fallback, result.provider);
  const items = [
    ...(fallback ? [make("li", { className: "fallback" }, fallback)] : []),
    ...mapped, ...(dropped ? [make("li", { className: "dropped" }, dropped)] : []),
  ];
  if (items.length === 0) return make("p", { className: "hint all-kept" }, "Made as asked: nothing was changed or left out.");
  return make("div", { className: "differences" },
    make("h3", {}, "Not quite as asked"), make("ul", {}, ...items));
}

/** A finished request: the pictures, what was changed, and how it was made. */
export function showResult(result, { prompt, size, seconds }) {
  addresses.forEach((address) => URL.revokeObjectURL(address));
  addresses = [];
  const count = result.pictures.length;
  const shown = { prompt, size: result.size ?? size };
  show("done",
    make("div", { className: count > 1 ? "pictures several" : "pictures" },
      ...result.pictures.map((picture, index) => pictureOf(picture, index, count, shown))),
    differences(result),
    result.reattached ? make("p", { className: "hint" }, "Joined a job that was already running; nothing was paid twice.") : "",
    facts([
      ["Time", duration(seconds)],
      ["Size", result.size?.replace("x", " × ")],
      ["Provider", result.provider],
      ["Model there", result.route ? make("code", {}, result.route) : null],
      ["Seed", result.seed],
      ["Jobs started", result.attempts],
      ["Request id", result.requestId ? copyable(result.requestId, "the request id") : null],
    ]));
  const differs = result.mapped || result.dropped || result.fallback ? ", not quite as asked; see below" : "";
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

/** A failed request: what happened, what to do, and what to quote when asking for help. */
export function showError(error, { onRetry, onKey }) {
  const holder = make("div", { className: "actions" });
  show("error",
    make("div", { className: "failure" },
      make("h3", {}, errorTitle(error)),
      make("p", { className: "failure-message" }, error.message),
      make("p", { className: "failure-advice" }, errorAdvice(error)),
      holder,
      facts([
        ["Status", error.status || null],
        ["Code", error.code ? make("code", {}, error.code) : null],
        ["Parameter", error.param ? make("code", {}, error.param) : null],
        ["Request id", error.requestId ? copyable(error.requestId, "the request id") : null],
      ])));
  if (error.status === 401) {
    holder.append(make("button", { type: "button", className: "primary", on: { click: onKey } }, "Enter the key"));
  } else if (error.retry) holder.append(retryButton(error, onRetry));
  else holder.remove();
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
