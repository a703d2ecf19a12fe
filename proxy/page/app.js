/** The page for people: reads the form, runs requests, keeps the parts in step. */
import { byId, copies, facts, make } from "./dom.js";
import { addToGallery, startGallery } from "./gallery.js";
import { generate, listModels } from "./service.js";
import { integrations } from "./settings.js";
import { curl, javascript, python } from "./snippets.js";
import { announce, showCancelled, showEmpty, showError, showResult, showRunning } from "./stage.js";
import { codeBlock, tabs } from "./tabs.js";

const BASE = `${location.origin}/v1`;
const FALLBACK_SIZE = "1024x1024";
const FALLBACK_COUNT = 10; // OpenAI's own limit for n
const WORDS = ["negative_prompt", "quality", "style", "output_format", "response_format"];
const NUMBERS = ["steps", "cfg", "seed"];

let models = [];
let keyed = false; // does the service ask for a key?
let running = null;
let redraw = () => {};

const key = () => byId("key").value.trim();

/** The request as the form stands. */
function requestBody() {
  const body = { model: byId("model").value, prompt: byId("prompt").value.trim() };
  if (byId("size").value) body.size = byId("size").value;
  body.n = Number(byId("n").value) || 1;
  for (const name of WORDS) if (byId(name).value.trim()) body[name] = byId(name).value.trim();
  for (const name of NUMBERS) if (byId(name).value !== "") body[name] = byId(name).valueAsNumber;
  return body;
}

/** The form as an example: complete even when nothing was typed. */
function exampleBody() {
  const body = requestBody();
  return { ...body, model: body.model || "dall-e-3", prompt: body.prompt || "A lighthouse at dusk" };
}

function fillSelect(select, values, label, chosen) {
  const previous = select.value;
  select.replaceChildren(...values.map((value) => make("option", { value }, label(value))));
  select.value = values.includes(previous) && previous !== "" ? previous : chosen;
  select.disabled = values.length === 0;
}

function sizeLabel(size) {
  const [width, height] = size.split("x").map(Number);
  if (!height) return size;
  const shape = width === height ? "square" : width > height ? "wide" : "tall";
  return `${width} × ${height} ${shape}`;
}

/** Sizes and counts that the chosen model offers. */
function fillForModel() {
  const chosen = models.find((model) => model.id === byId("model").value);
  const parameters = chosen?.parameters ?? {};
  const fallback = parameters.size?.default ?? FALLBACK_SIZE;
  const sizes = parameters.size?.enum?.length ? parameters.size.enum : [fallback];
  fillSelect(byId("size"), sizes, sizeLabel, sizes.includes(fallback) ? fallback : sizes[0]);
  const most = parameters.n?.maximum ?? parameters.n?.max ?? FALLBACK_COUNT;
  fillSelect(byId("n"), Array.from({ length: most }, (_, index) => String(index + 1)), String, "1");
}

function fillModels() {
  const groups = new Map();
  for (const { id } of models) {
    const name = id.includes("/") ? id.slice(0, id.indexOf("/")) : "Names that apps know";
    groups.set(name, [...(groups.get(name) ?? []), id]);
  }
  const select = byId("model");
  const previous = select.value;
  select.replaceChildren(...[...groups].map(([label, ids]) =>
    make("optgroup", { label }, ...ids.map((id) => make("option", { value: id }, id)))));
  const ids = models.map((model) => model.id);
  select.value = [previous, "dall-e-3", ids[0]].find((id) => ids.includes(id)) ?? "";
  select.disabled = models.length === 0;
  byId("generate").disabled = models.length === 0 || running !== null;
  fillForModel();
}

function tellService(text, state) {
  byId("service").textContent = text;
  byId("service").dataset.state = state;
}

async function loadModels() {
  try {
    models = await listModels(key());
    keyed = keyed || key() !== "";
    tellService(`${models.length} models ready.`, "good");
    if (models.length === 0) tellService("The service runs but offers no model. Its owner has to set a provider’s token.", "bad");
  } catch (error) {
    models = [];
    if (error.status === 401) {
      keyed = true;
      tellService(key() ? "That key isn’t right." : "The service asks for an API key.", "bad");
    } else tellService(`No models: ${error.message}`, "bad");
  }
  fillModels();
  refresh();
}

/** Redraw what follows the form. */
function refresh() {
  if (byId("stage").dataset.state === "empty") showEmpty(byId("size").value || FALLBACK_SIZE, useExample);
  redraw();
}

function useExample(text) {
  byId("prompt").value = text;
  byId("prompt").focus();
  refresh();
}

function markField(name, message) {
  const field = name && document.querySelector(`#form [name="${CSS.escape(name)}"]`);
  if (!field) return;
  field.setAttribute("aria-invalid", "true");
  field.closest("details")?.setAttribute("open", "");
  const note = make("p", { className: "field-error", id: `${field.id}-error` }, message);
  field.after(note);
  field.setAttribute("aria-errormessage", note.id);
}

function clearMarks() {
  document.querySelectorAll(".field-error").forEach((note) => note.remove());
  document.querySelectorAll("#form [aria-invalid]").forEach((field) => {
    field.removeAttribute("aria-invalid");
    field.removeAttribute("aria-errormessage");
  });
}

function cancel() {
  if (!running) return;
  const { controller, body } = running;
  finish();
  controller.abort();
  showCancelled(() => run(body));
}

function finish() {
  running = null;
  byId("generate").disabled = models.length === 0;
  byId("generate").textContent = "Generate";
}

/** Run one request from start to its picture, error or cancellation. */
async function run(body) {
  clearMarks();
  const controller = new AbortController();
  const mine = { controller, body };
  running = mine;
  byId("generate").disabled = true;
  byId("generate").textContent = "Working…";
  const report = showRunning(body.size, cancel);
  byId("stage").scrollIntoView({ block: "nearest" });
  const started = performance.now();
  try {
    const result = await generate(body, {
      key: key(), signal: controller.signal, report: (job) => { if (running === mine) report(job); },
    });
    if (running !== mine) return;
    const seconds = (performance.now() - started) / 1000;
    showResult(result, { ...body, seconds });
    finish();
    await addToGallery(result, { ...body, seconds });
  } catch (error) {
    if (running !== mine) return;
    finish();
    showError(error, { onRetry: () => run(body), onKey: () => byId("key").focus() });
    markField(error.param, error.message);
  }
}

function submit(event) {
  event.preventDefault();
  if (running) return;
  clearMarks();
  const body = requestBody();
  if (!body.prompt) {
    markField("prompt", "Say what the picture should show.");
    byId("prompt").focus();
    announce("The prompt is empty");
    return;
  }
  if (body.model) run(body);
}

function drawIntegration({ blocks = [], fields = null, notes = [] }, name) {
  return [
    ...blocks.map(([title, text]) => make("div", {}, make("h3", {}, title), codeBlock(text, `${name}: ${title}`))),
    fields ? make("div", {}, make("h3", {}, fields[0]),
      facts(fields[1].map(([term, value]) => [term, make("code", {}, value)]))) : "",
    ...notes.map((note) => make("p", { className: "hint" }, note)),
  ];
}

function startTabs() {
  const languages = [["curl", curl], ["Python", python], ["JavaScript", javascript]];
  const drawCall = tabs(byId("call-tabs"), "Language", languages.map(([name, write]) => ({
    name, id: `call-${name.toLowerCase()}`, draw: () => [codeBlock(write(BASE, exampleBody(), keyed), `${name} code`)],
  })));
  const context = () => ({
    origin: location.origin, base: BASE, model: byId("model").value || "dall-e-3", size: byId("size").value || FALLBACK_SIZE,
  });
  const drawSettings = tabs(byId("connect-tabs"), "Program", integrations(context()).map(({ name }, index) => ({
    name, id: `connect-${index}`, draw: () => drawIntegration(integrations(context())[index], name),
  })));
  redraw = () => {
    drawCall();
    drawSettings();
  };
}

function startKey() {
  const field = byId("key");
  const show = byId("key-show");
  try {
    field.value = sessionStorage.getItem("key") ?? "";
  } catch {
    // storage is off: the key then lasts for this page only
  }
  field.addEventListener("change", () => {
    try {
      sessionStorage.setItem("key", key());
    } catch {
      // as above
    }
    loadModels();
  });
  show.addEventListener("click", () => {
    const hidden = field.type === "password";
    field.type = hidden ? "text" : "password";
    show.textContent = hidden ? "Hide" : "Show";
    show.setAttribute("aria-pressed", String(hidden));
  });
}

function startForm() {
  const form = byId("form");
  form.addEventListener("submit", submit);
  form.addEventListener("input", (event) => {
    if (event.target.id === "model") fillForModel();
    refresh();
  });
  // A wrong number in the folded part could not be shown or reached otherwise.
  form.addEventListener("invalid", (event) => event.target.closest("details")?.setAttribute("open", ""), true);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !byId("viewer").open) cancel();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && form.contains(event.target)) form.requestSubmit();
  });
}

function reuse(record) {
  byId("prompt").value = record.prompt;
  if (models.some((model) => model.id === record.model)) byId("model").value = record.model;
  fillForModel();
  byId("prompt").focus();
  refresh();
}

byId("base").textContent = BASE;
document.querySelectorAll("[data-copy]").forEach((button) =>
  copies(button, () => byId(button.dataset.copy).textContent));
showEmpty(FALLBACK_SIZE, useExample);
startKey();
startForm();
startTabs();
startGallery(reuse);
loadModels();
