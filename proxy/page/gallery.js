/** The gallery: small pictures in a grid, to search, open, compare, export and delete. */
import { byId, make } from "./dom.js";
import { KEPT_PICTURES, forget, forgetAll, keep, kept } from "./keep.js";
import { bytesOf, copiesOf, fileName } from "./pictures.js";
import { compare, view } from "./viewer.js";
import { zipped } from "./zip.js";

const CONFIRM_MS = 4000; // how long “Clear all” waits for its second press
const COMPARED = 4; // at most so many side by side

let records = [];
let addresses = [];
let picked = null; // the ids chosen to compare; null: a press opens the picture
let deleted = null; // the last one, which can be brought back

const name = (record) => (record.prompt.length > 120 ? `${record.prompt.slice(0, 120)}…` : record.prompt) || "A variation";

function addressOf(blob) {
  addresses.push(URL.createObjectURL(blob));
  return addresses.at(-1);
}

function shown() {
  const words = byId("gallery-search").value.toLowerCase().split(/\s+/).filter(Boolean);
  return records.filter((record) => {
    const text = [record.prompt, record.model, record.provider, record.route, record.seed, record.size].join(" ").toLowerCase();
    return words.every((word) => text.includes(word));
  });
}

function press(record) {
  if (!picked) return view(shown(), shown().indexOf(record), extra);
  if (picked.has(record.id)) picked.delete(record.id);
  else if (picked.size < COMPARED) picked.add(record.id);
  draw();
  return document.querySelector(`[data-id="${record.id}"]`)?.focus();
}

const extra = (record, close) => [make("button", { type: "button", className: "danger small", on: { click: () => { close(); remove(record); } } }, "Delete")];

function thumbnail(record) {
  const source = record.thumb ? addressOf(record.thumb) : record.url;
  const image = make("img", { src: source, alt: "", loading: "lazy", referrerPolicy: "no-referrer" });
  const state = picked ? { "aria-pressed": String(picked.has(record.id)) } : {};
  return make("li", {},
    make("button", {
      type: "button", className: "thumb", title: name(record), "data-id": record.id,
      "aria-label": `${picked ? "Compare" : "Open"}: ${name(record)}`, ...state, on: { click: () => press(record) },
    }, image),
    picked ? "" : make("button", { type: "button", className: "remove", "aria-label": `Delete: ${name(record)}`, on: { click: () => remove(record) } }, "×"));
}

function hint(count) {
  if (records.length === 0) return "Pictures you make here are kept in this browser only, with all their settings. None so far.";
  if (picked) return picked.size < 2 ? `Choose two to ${COMPARED} pictures to see them side by side.` : `${picked.size} chosen.`;
  const which = count < records.length ? `${count} of ${records.length} pictures shown` : `${records.length} of at most ${KEPT_PICTURES} pictures`;
  return `${which}, kept in this browser only: another browser or device doesn’t show them.`;
}

function draw() {
  addresses.forEach((address) => URL.revokeObjectURL(address));
  addresses = [];
  const list = shown();
  byId("gallery-list").replaceChildren(...list.map(thumbnail));
  byId("gallery-tools").hidden = records.length === 0;
  byId("gallery-hint").textContent = hint(list.length);
  byId("gallery-undo").hidden = !deleted;
  drawTools();
  byId("gallery-none").hidden = records.length === 0 || list.length > 0;
}

/** While pictures are chosen, only what belongs to choosing. */
function drawTools() {
  const compares = byId("gallery-compare");
  compares.textContent = picked?.size > 1 ? `Compare ${picked.size}` : "Compare";
  compares.className = picked ? "quiet primary" : "quiet";
  compares.disabled = picked !== null && picked.size < 2;
  compares.hidden = records.length < 2;
  byId("gallery-cancel").hidden = !picked;
  byId("gallery-export").hidden = byId("gallery-clear").hidden = picked !== null;
}

async function refresh() {
  try {
    records = await kept();
    draw();
  } catch {
    byId("gallery-hint").textContent = "This browser keeps nothing for this page (a private window, or storage is off).";
  }
}

async function remove(record) {
  const at = shown().indexOf(record);
  deleted = record;
  await forget(record.id);
  await refresh();
  const buttons = document.querySelectorAll("#gallery-list .thumb");
  (buttons[Math.min(at, buttons.length - 1)] ?? byId("gallery-title")).focus();
}

async function bringBack() {
  await keep(deleted);
  deleted = null;
  await refresh();
  byId("gallery-title").focus();
}

function startComparing() {
  byId("gallery-compare").addEventListener("click", () => {
    const chosen = picked ? records.filter((record) => picked.has(record.id)) : [];
    picked = picked ? null : new Set();
    draw();
    if (!picked) compare(chosen);
    else document.querySelector("#gallery-list .thumb")?.focus({ preventScroll: true });
  });
  byId("gallery-cancel").addEventListener("click", () => {
    picked = null;
    draw();
    byId("gallery-compare").focus();
  });
}

/** Save what is shown as one archive: the pictures, and a list of how each was made. */
async function exportZip() {
  const button = byId("gallery-export");
  button.disabled = true;
  const files = [];
  const list = [];
  for (const [index, { kept: blob, thumb, id, ...record }] of shown().entries()) {
    const bytes = blob ?? await bytesOf(record) ?? thumb;
    const file = bytes ? fileName(record.prompt || "variation", index, bytes.type) : null;
    if (bytes) files.push({ name: file, blob: bytes, made: record.made });
    list.push({ file, ...record, made: new Date(record.made).toISOString() });
  }
  files.push({ name: "pictures.json", blob: new Blob([JSON.stringify(list, null, 2)]), made: Date.now() });
  const address = URL.createObjectURL(await zipped(files));
  make("a", { href: address, download: "images-proxy.zip" }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
  button.disabled = false;
}

function clearOnSecondPress() {
  const button = byId("gallery-clear");
  let timer = 0;
  const calm = () => {
    clearTimeout(timer);
    timer = 0;
    button.textContent = "Clear all";
    button.classList.remove("danger");
  };
  button.addEventListener("click", async () => {
    if (!timer) {
      button.textContent = `Really delete ${records.length}?`;
      button.classList.add("danger");
      timer = setTimeout(calm, CONFIRM_MS);
      return;
    }
    calm();
    deleted = null;
    await forgetAll();
    await refresh();
    byId("gallery-title").focus();
  });
}

/** Show the gallery. */
export function startGallery() {
  byId("gallery-search").addEventListener("input", draw);
  byId("gallery-export").addEventListener("click", exportZip);
  byId("gallery-undo").addEventListener("click", bringBack);
  startComparing();
  clearOnSecondPress();
  return refresh();
}

/** Add finished pictures, unless another tab that followed the same request has done so. */
export async function addToGallery(made) {
  const there = await kept().catch(() => []);
  for (const { blob: given, ...record } of made) {
    if (record.generation && there.some((other) => other.generation === record.generation && other.index === record.index)) continue;
    const blob = given ?? await bytesOf(record);
    const { size, ...copies } = await copiesOf(blob, record.url);
    await keep({ ...record, size: size ?? record.size, ...copies }).catch(() => null);
  }
  await refresh();
}
