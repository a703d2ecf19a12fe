/** The form: what a person wants, what of it the chosen model takes, and what is told before anything is bought. */
import { byId, make, recall, remember } from "./dom.js";
import { abilities, does, found, nearest, providersOf, takes } from "./models.js";
import { startPicker } from "./picker.js";
import { capital, dollars, duration, forecastNotes, list } from "./words.js";

const FORM = "form"; // where the tab keeps it
const COUNT = 10; // OpenAI's own limit for n
const EMPTY = {
  prompt: "", model: "", size: "", n: "1", negative_prompt: "", steps: "", cfg: "", seed: "", quality: "", style: "",
  sampler: "", strength: "", output_format: "", response_format: "",
};
const NUMBERS = ["steps", "cfg", "seed", "strength"];
const OPENAI_STYLES = ["vivid", "natural"];
// What a setting of the form needs of the model, where the names differ.
const NEEDS = { quality: "steps", style: "style_preset" };
const AUTO = "auto";

let models = [];
let operation = "generate";
let pictures = 0;
let demo = false;
let picker = null;
let forecast = { of: "", routes: [] };
let changed = () => {};

/** What is wanted, whether the chosen model takes it or not; so that another model finds it again. */
let wish = { ...EMPTY };

/** The chosen model as the service describes it; undefined while there is none. */
export const chosen = () => models.find((model) => model.id === wish.model);

const taken = () => takes(chosen(), operation);
const takesSetting = (name, { settings } = taken()) =>
  (NEEDS[name] ?? name) in settings && (name !== "strength" || operation !== "generate"); // how far to go from a picture

/** The size that will be asked for: the wanted one, or the nearest that the model makes; empty: the model's own. */
function size({ sizes, size: own } = taken()) {
  if (wish.size === AUTO || sizes.length === 0) return "";
  if (!wish.size) return own;
  return sizes.includes(wish.size) ? wish.size : nearest(sizes, wish.size);
}

/** The proportion that the picture will have, as far as it is known. */
export const shape = () => size() || taken().size;

/** The request as the form stands: only what the chosen model takes. */
export function requestBody() {
  const body = { model: wish.model, prompt: wish.prompt.trim() };
  if (size()) body.size = size();
  body.n = Number(wish.n) || 1;
  for (const name of ["negative_prompt", ...NUMBERS, "quality", "style", "sampler"]) {
    const value = wish[name].trim();
    if (value === "" || !takesSetting(name)) continue;
    if (name === "style" && !OPENAI_STYLES.includes(value)) body.style_preset = value;
    else body[name] = NUMBERS.includes(name) ? Number(value) : value;
  }
  for (const name of ["output_format", "response_format"]) if (wish[name]) body[name] = wish[name];
  return body;
}

/** Fill the form with a request's settings, exactly: what it doesn't name is emptied. */
export function useRequest(body) {
  const texts = Object.fromEntries(Object.keys(EMPTY).filter((name) => name in body).map((name) => [name, String(body[name])]));
  wish = { ...EMPTY, ...texts, style: body.style ?? body.style_preset ?? "", size: body.size ?? AUTO };
  if (!chosen()) wish.model = usual()?.id ?? "";
  showForm();
}

/** Change some values, as if a person had. */
export function change(values) {
  Object.assign(wish, values);
  showForm();
}

const usual = () => models.find((model) => model.id === "dall-e-3") ?? models[0];

/** Why the form can't be sent, in a sentence; empty if it can. {field, text}. */
export function problem() {
  if (!chosen()) return { field: "model", text: "Choose a model." };
  if (!does(chosen(), operation)) {
    const able = found(models, "").find((model) => does(model, operation));
    const instead = able ? ` ${able.name} can.` : "";
    const deed = { generate: "draw from words alone; add a picture to edit", edit: "edit pictures", inpaint: "edit within a mask" }[operation];
    return { field: "model", text: `${chosen().name} can’t ${deed}.${instead}` };
  }
  const most = taken().images;
  if (pictures > most) return { field: "pictures", text: `${chosen().name} takes ${most === 1 ? "one picture" : `at most ${most} pictures`}.` };
  if (!wish.prompt.trim()) return { field: "prompt", text: "Say what the picture should show." };
  return null;
}

/** What a dry run is asked for: the form without its prompt, which makes no difference. */
export function wanted() {
  const { prompt, ...body } = requestBody();
  return { body, pictures, masked: operation === "inpaint" };
}

/** What a dry run told of the routes, as long as it is the form that it was asked for. */
const routes = () => (forecast.of === JSON.stringify(wanted()) ? forecast.routes : []);

/** Show what a dry run told. */
export function showForecast(of, told) {
  forecast = { of, routes: told };
  tellBefore();
}

/** What would be changed or left out: [[heading, text], …]. */
function changes() {
  const what = taken();
  const left = Object.keys(EMPTY).filter((name) => byId(name).closest("[data-setting]") && wish[name].trim() && !takesSetting(name, what));
  const other = wish.size && wish.size !== AUTO && size(what) !== wish.size;
  const changed = other ? [`size ${wish.size.replace("x", " × ")} → ${size(what).replace("x", " × ") || "the model’s own"}`] : [];
  return forecastNotes(routes(), left, changed);
}

function estimate() {
  const model = chosen();
  if (!model) return "";
  const [first] = routes();
  const { price, seconds } = { ...taken(), ...(first?.price ? { price: Number(first.price) } : {}), ...(first?.seconds ? { seconds: first.seconds } : {}) };
  const n = Number(wish.n) || 1;
  const [provider, ...others] = providersOf(model, operation);
  const parts = [
    price === null ? "price unknown" : `${dollars(price * n)}${n > 1 ? ` for ${n}\u00a0pictures` : ""}`,
    seconds === null ? "" : `about ${duration(seconds)}`,
    provider ? `by ${provider}${others.length ? `, else ${list(others, "or")}` : ""}` : "",
  ];
  return capital(`${demo ? "simulated: " : ""}${parts.filter(Boolean).join(", ")}.`);
}

function options(select, values, label, value) {
  select.replaceChildren(...values.map((each) => make("option", { value: each }, label(each))));
  select.value = values.includes(value) ? value : values[0] ?? "";
}

function sizeLabel(value) {
  if (value === AUTO) return "Default";
  const [width, height] = value.split("x").map(Number);
  return `${width} × ${height}${width === height ? "" : width > height ? " wide" : " tall"}`;
}

function rangeHint(name, [low, high, own] = []) {
  const field = byId(name);
  field.placeholder = own === undefined ? "auto" : String(own);
  field.title = low === undefined ? "" : `${low} to ${high}`;
}

/** Draw the form anew from what is wanted. */
function showForm() {
  const what = taken();
  const able = models.filter((model) => does(model, operation));
  picker.offer(able, operation);
  picker.choose(chosen());
  for (const name of Object.keys(EMPTY)) {
    const field = byId(name);
    if (name !== "model" && field.value !== wish[name]) field.value = wish[name];
    const part = field.closest("[data-setting]");
    if (part) part.hidden = !takesSetting(name, what);
  }
  options(byId("size"), [...(what.sizes.length ? what.sizes : []), AUTO], sizeLabel, size(what) || AUTO);
  options(byId("n"), Array.from({ length: COUNT }, (_, index) => String(index + 1)), String, wish.n);
  const styles = what.settings.style_preset ?? [];
  const unset = (text) => (value) => value || text;
  options(byId("style"), ["", ...OPENAI_STYLES, ...styles], unset("Default"), wish.style);
  options(byId("sampler"), ["", ...(what.settings.sampler ?? [])], unset("Default"), wish.sampler);
  rangeHint("steps", what.settings.steps);
  rangeHint("cfg", what.settings.cfg);
  rangeHint("strength", what.settings.strength);
  byId("prompt").placeholder = operation === "generate" ? "What should the picture show?" : "What should change?";
  const model = chosen();
  byId("model-hint").textContent = model ? [model.id, abilities(model)].filter(Boolean).join(" · ") : "";
  tellBefore();
  remember(FORM, wish);
  changed();
}

function tellBefore() {
  const found = problem();
  const said = changes();
  if (found?.field === "model" || found?.field === "pictures") said.unshift(["", found.text]);
  byId("before").hidden = said.length === 0 || models.length === 0;
  byId("before").replaceChildren(...said.map(([heading, text]) => make("li", {}, heading ? make("b", {}, `${heading}: `) : "", text)));
  byId("estimate").textContent = estimate();
}

/** The models on offer have changed. */
export function offerModels(offered, isDemo) {
  [models, demo] = [offered, isDemo];
  if (!chosen() && models.length) wish.model = usual().id;
  showForm();
}

/** The pictures to edit have changed. */
export function setPictures(count, masked) {
  pictures = count;
  operation = masked ? "inpaint" : count ? "edit" : "generate";
  showForm();
}

/** Connect the form; `onChange()` is called after each change. What the tab remembers is filled in. */
export function startForm(onChange) {
  changed = onChange;
  wish = { ...EMPTY, ...recall(FORM) };
  picker = startPicker(byId("model"), byId("model-list"), (model) => change({ model: model.id }));
  byId("form").addEventListener("input", (event) => {
    if (!(event.target.id in EMPTY)) return;
    wish[event.target.id] = event.target.value;
    showForm();
  });
  showForm();
}
