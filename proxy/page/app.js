/** The page for people: runs requests, and keeps the parts in step. */
import { byId, copies, hush, make, recall, remember, tell } from "./dom.js";
import { change, chosen, offerModels, problem, requestBody, setPictures, shape, showForecast, startForm, useRequest, wanted } from "./form.js";
import { addToGallery, startGallery } from "./gallery.js";
import { draftName, editOnly, startInputs, uploads } from "./inputs.js";
import { draftOf, keepDraft } from "./keep.js";
import { does } from "./models.js";
import { bytesFor, recordsOf, startRecords } from "./records.js";
import { askService, forecast, generate, previewAt, ServiceError } from "./service.js";
import { drawCode, startCode } from "./code.js";
import { announce, showCancelled, showEmpty, showError, showResult, showRunning } from "./stage.js";
import { startViewer } from "./viewer.js";
import { list, providerSentence } from "./words.js";

const BASE = `${location.origin}/v1`;
const RESTED_MS = 400;
const RUNNING = "running"; // where the tab keeps the request that runs
const LOST_MS = 60_000; // a request whose answer was never heard is repeated by itself within this time only

let models = [];
let keyed = false; // does the service ask for a key?
let running = null;

const key = () => byId("key").value.trim();

/** A name for a request, by which the service recognises its repeat. */
const newName = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

function drawProviders(providers) {
  byId("providers").hidden = providers.length === 0;
  const used = providers.filter((provider) => provider.used).length;
  byId("providers-count").textContent = `Providers: ${used} of ${providers.length}`;
  byId("providers-list").replaceChildren(...providers.map((provider) => make("li", { "data-used": String(provider.used) },
    make("b", {}, provider.name), ` ${providerSentence(provider)}`)));
}

function tellService(text, state) {
  byId("service").textContent = text;
  byId("service").dataset.state = state;
}

function askForKey(text) {
  tellService(text, "bad");
  byId("connection").open = true;
  byId("key-hint").textContent = "Whoever runs this service has one for you. Enter takes it; it is kept in this tab until it closes.";
}

async function loadService() {
  try {
    const service = await askService(key());
    ({ models } = service);
    keyed = keyed || key() !== "";
    document.body.dataset.demo = String(service.demo);
    byId("faults").hidden = !service.demo;
    drawProviders(service.providers);
    if (models.length === 0) {
      tellService("The service runs but offers no model. Its owner has to set a provider’s token.", "bad");
      byId("providers").open = true;
    } else if (service.demo) tellService(`Demo: simulated pictures, nothing is bought. ${models.length} models ready.`, "good");
    else {
      const used = service.providers.filter((provider) => provider.used).map((provider) => provider.name);
      tellService(`${models.length} models ready${used.length ? `, made by ${list(used)}` : ""}.`, "good");
    }
    offerModels(models, service.demo);
  } catch (error) {
    models = [];
    offerModels(models, false);
    if (error.status === 401) {
      keyed = true;
      askForKey(key() ? "That key isn’t right." : "This service asks for an API key.");
    } else tellService(`No models: ${error.message}`, "bad");
  }
  byId("models-link").hidden = keyed; // a link can carry no key
  refresh();
}

/** Redraw what follows the form. */
function refresh() {
  byId("generate").disabled = models.length === 0 || running !== null;
  if (byId("stage").dataset.state === "empty") showEmpty(shape(), (prompt) => change({ prompt }) ?? byId("prompt").focus());
  askSoon();
  drawCode({ base: BASE, body: requestBody(), keyed, images: uploads().images.length, masked: uploads().mask !== null });
}

let asking = 0;
let asked = "";

/** Ask what the form would become at the providers, once it has rested for a moment. */
function askSoon() {
  clearTimeout(asking);
  const of = JSON.stringify(wanted());
  if (of === asked || models.length === 0 || ["model", "pictures"].includes(problem()?.field)) return;
  asking = setTimeout(async () => {
    asked = of;
    showForecast(of, await forecast(JSON.parse(of), key()));
  }, RESTED_MS);
}

function markField(name, message) {
  const field = name && document.querySelector(`#form [name="${CSS.escape(name)}"]`);
  if (!field) return;
  field.setAttribute("aria-invalid", "true");
  field.closest("details")?.setAttribute("open", "");
  const note = make("p", { className: "field-error", id: `${field.id}-error` }, message);
  (field.closest(".picker") ?? field).after(note);
  field.setAttribute("aria-errormessage", note.id);
  // The message must be heard, too: not every screen reader knows aria-errormessage.
  field.setAttribute("aria-describedby", `${note.id} ${field.dataset.hint ?? ""}`.trim());
}

function clearMarks() {
  document.querySelectorAll("#form .field > .field-error[id]").forEach((note) => { if (note.id !== "pictures-error") note.remove(); });
  document.querySelectorAll("#form [aria-invalid]").forEach((field) => {
    field.removeAttribute("aria-invalid");
    field.removeAttribute("aria-errormessage");
    if (field.dataset.hint) field.setAttribute("aria-describedby", field.dataset.hint);
    else field.removeAttribute("aria-describedby");
  });
}

/** Keep the running request in the tab, so that a reload finds it again; null forgets it. */
function keepRunning(request) {
  if (!request) {
    remember(RUNNING, null);
    keepDraft(draftName(RUNNING), null);
    return;
  }
  const { images, mask, ...plain } = request;
  remember(RUNNING, plain);
}

function cancel() {
  if (!running) return;
  const { controller, request } = running;
  finish();
  keepRunning(null);
  controller.abort();
  showCancelled(() => run({ ...request, repeat: newName(), path: null }));
}

function finish() {
  running = null;
  byId("generate").disabled = models.length === 0;
  byId("generate").textContent = "Generate";
}

/** Run one request from start to its picture, error or cancellation. */
async function run(given) {
  clearMarks();
  hush();
  const request = { begun: Date.now(), repeat: newName(), path: null, images: [], mask: null, ...given };
  const controller = new AbortController();
  const mine = { controller, request };
  running = mine;
  keepRunning(request);
  if (request.images.length && !request.path) await keepDraft(draftName(RUNNING), { images: request.images, mask: request.mask });
  byId("generate").disabled = true;
  byId("generate").textContent = "Working…";
  const report = showRunning(request.body.size ?? shape(), {
    begun: request.begun, onCancel: cancel, previewAt: (address) => previewAt(address, key()),
  });
  byId("stage").scrollIntoView({ block: "nearest" });
  const told = (path) => {
    request.path = path;
    if (running === mine) keepRunning(request);
  };
  try {
    const result = await generate(request, {
      key: key(), signal: controller.signal, told, report: (job) => { if (running === mine) report(job); },
    });
    if (running !== mine) return;
    const seconds = (Date.now() - request.begun) / 1000;
    const records = recordsOf(result, { ...request, generation: request.path, seconds });
    finish();
    showResult(records, { ...result, seconds });
    await addToGallery(records);
    if (!running) keepRunning(null); // only now: the picture would be lost with a reload before
  } catch (error) {
    if (running !== mine) return;
    finish();
    fail(error, request);
  }
}

function fail(error, request) {
  // Only a network that fails says nothing of the picture: it is followed again, after a reload too.
  const lost = error.status === 0;
  if (!lost) keepRunning(null);
  const again = { ...request, begun: Date.now() };
  showError(error, {
    onRetry: () => run({ ...again, path: lost ? request.path : null }),
    onAnew: () => run({ ...again, path: null, repeat: newName() }),
    onKey: enterKey,
  });
  if (error.status === 401) askForKey(error.message);
  markField(error.param, error.message);
}

function enterKey() {
  byId("connection").open = true;
  byId("key").focus();
}

/** Follow a request again that ran when the page was left. One of which nothing was heard is repeated by its name. */
async function resume() {
  const left = recall(RUNNING);
  if (!left?.body || running) return;
  const uploaded = left.kind === "generate" ? { images: [], mask: null } : await draftOf(draftName(RUNNING));
  if (running) return;
  const request = { ...left, images: uploaded?.images ?? [], mask: uploaded?.mask ?? null };
  if (left.path || (uploaded && Date.now() - left.begun < LOST_MS)) {
    run(request);
    return;
  }
  fail(new ServiceError("The page was left before the service had answered.", { status: 404, code: "generation_forgotten", retry: false }), request);
}

function submit(event) {
  event.preventDefault();
  if (running) return;
  clearMarks();
  const found = problem();
  if (found) {
    markField(found.field, found.text);
    byId(found.field).focus();
    announce(found.text);
    return;
  }
  const { images, mask } = uploads();
  run({ kind: images.length ? "edit" : "generate", body: requestBody(), images, mask });
}

const UNREADABLE = "The browser may show this picture but not read it. Save it and drop it into the form.";

async function edit(record) {
  const blob = await bytesFor(record);
  if (!blob) return tell(UNREADABLE);
  await editOnly(blob);
  byId("prompt").focus();
  byId("composer-title").scrollIntoView({ block: "start" });
  return announce("The picture is in the form. Say what to change, or paint a mask.");
}

async function vary(record) {
  if (running) return tell("One request at a time: another one is running.");
  const able = [chosen(), models.find((model) => model.id === record.model), ...models].find((model) => model && does(model, "edit"));
  if (!able) return tell("No model of this service can make variations.");
  const blob = await bytesFor(record);
  if (!blob) return tell(UNREADABLE);
  return run({ kind: "variation", body: { model: able.id, n: 1 }, images: [blob] });
}

function reuse(record, values = {}) {
  useRequest({ ...record.request, ...values });
  byId("prompt").focus();
  byId("composer-title").scrollIntoView({ block: "start" });
  const missing = record.kind !== "generate" && uploads().images.length === 0;
  tell(missing ? "Prompt and settings are in the form; the pictures that were edited aren’t kept." : "Prompt and all settings are in the form.");
}

function startKey() {
  const field = byId("key");
  const show = byId("key-show");
  field.value = recall("key") ?? "";
  field.addEventListener("change", () => {
    remember("key", key());
    loadService();
  });
  // In the form's own sense it is no part of it, so Enter would do nothing.
  field.addEventListener("keydown", (event) => { if (event.key === "Enter") field.blur(); });
  show.addEventListener("click", () => {
    const hidden = field.type === "password";
    field.type = hidden ? "text" : "password";
    show.textContent = hidden ? "Hide" : "Show";
    show.setAttribute("aria-pressed", String(hidden));
  });
}

function startKeys() {
  const form = byId("form");
  form.addEventListener("submit", submit);
  document.addEventListener("keydown", (event) => {
    // In a field to search in, Escape empties that.
    if (event.key === "Escape" && !document.querySelector("dialog[open]") && event.target.type !== "search") cancel();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && form.contains(event.target)) form.requestSubmit();
  });
}

byId("base").textContent = BASE;
document.querySelectorAll("[data-copy]").forEach((button) =>
  copies(button, () => byId(button.dataset.copy).textContent));
startRecords({ edit, vary, reuse, sameSeed: (record) => reuse(record, { seed: record.seed, n: 1 }) });
startKey();
startKeys();
startCode();
startForm(refresh);
startViewer();
startGallery();
startInputs(setPictures).then(resume);
loadService();
