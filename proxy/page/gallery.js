/** The gallery: small pictures in a grid, each opens large. */
import { byId, facts, make } from "./dom.js";
import { KEPT_PICTURES, forget, forgetAll, keep, kept } from "./keep.js";
import { bytesOf, copiesOf, fileName } from "./pictures.js";
import { duration } from "./words.js";

const CONFIRM_MS = 4000; // how long “Clear all” waits for its second press

let records = [];
let addresses = [];
let reuse = () => {};

function addressOf(blob) {
  const address = URL.createObjectURL(blob);
  addresses.push(address);
  return address;
}

function thumbnail(record) {
  const source = record.thumb ? addressOf(record.thumb) : record.url;
  const image = make("img", { src: source, alt: "", loading: "lazy", referrerPolicy: "no-referrer" });
  const name = record.prompt.length > 120 ? `${record.prompt.slice(0, 120)}…` : record.prompt;
  return make("li", {},
    make("button", { type: "button", className: "thumb", title: name, "aria-label": `Open: ${name}`, on: { click: () => view(record) } }, image),
    make("button", { type: "button", className: "remove", "aria-label": `Delete: ${name}`, on: { click: () => remove(record) } }, "×"));
}

function draw() {
  addresses.forEach((address) => URL.revokeObjectURL(address));
  addresses = [];
  byId("gallery-list").replaceChildren(...records.map(thumbnail));
  byId("gallery-clear").hidden = records.length === 0;
  byId("gallery-hint").textContent = records.length
    ? `${records.length} of at most ${KEPT_PICTURES} pictures, kept in this browser only.`
    : "Pictures you make here are kept in this browser only. None so far.";
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
  const at = records.indexOf(record);
  await forget(record.id);
  await refresh();
  const buttons = document.querySelectorAll("#gallery-list .thumb");
  (buttons[Math.min(at, buttons.length - 1)] ?? byId("gallery-title")).focus();
}

function downloadOf(record, address) {
  const own = Boolean(record.kept);
  return make("a", {
    className: "button", href: address, download: own ? fileName(record.prompt, 0, record.kept.type) : "",
    target: own ? "" : "_blank", rel: "noopener noreferrer",
  }, own ? "Download" : "Open original");
}

function view(record) {
  const address = record.kept ? addressOf(record.kept) : record.url;
  const viewer = byId("viewer");
  const lost = make("p", { className: "hint", hidden: true },
    "The original is no longer at its address. This is the small copy that the browser kept.");
  const image = make("img", { src: address, alt: record.prompt, referrerPolicy: "no-referrer" });
  image.addEventListener("error", () => {
    lost.hidden = false;
    if (record.thumb) image.src = addressOf(record.thumb);
  }, { once: true });
  const again = make("button", { type: "button", on: { click: () => { viewer.close(); reuse(record); } } }, "Use this prompt");
  const away = make("button", { type: "button", className: "danger", on: { click: () => { viewer.close(); remove(record); } } }, "Delete");
  byId("viewer-body").replaceChildren(
    make("div", { className: "viewer-picture" }, image), lost,
    make("p", { className: "viewer-prompt" }, record.prompt),
    facts([["Model", record.model], ["Size", record.size], ["Time", duration(record.seconds)],
      ["Made", new Date(record.made).toLocaleString()]]),
    make("div", { className: "actions" }, downloadOf(record, address), again, away));
  viewer.showModal();
}

function clearOnSecondPress() {
  const button = byId("gallery-clear");
  let timer = 0;
  const calm = () => {
    clearTimeout(timer);
    timer = 0;
    button.textContent = "Clear all";
  };
  button.addEventListener("click", async () => {
    if (!timer) {
      button.textContent = `Really delete ${records.length}?`;
      timer = setTimeout(calm, CONFIRM_MS);
      return;
    }
    calm();
    await forgetAll();
    await refresh();
    byId("gallery-title").focus();
  });
}

/** Show the gallery; `onReuse(record)` is called when someone wants a picture's prompt again. */
export function startGallery(onReuse) {
  reuse = onReuse;
  const viewer = byId("viewer");
  byId("viewer-close").addEventListener("click", () => viewer.close());
  viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
  clearOnSecondPress();
  return refresh();
}

/** Add the pictures of a finished request. */
export async function addToGallery(result, { prompt, model, size, seconds }) {
  for (const picture of result.pictures) {
    const blob = await bytesOf(picture);
    const copies = await copiesOf(blob, picture.url);
    const record = { made: Date.now(), prompt, model, size: result.size ?? size, seconds, url: picture.url, ...copies };
    await keep(record).catch(() => null);
  }
  await refresh();
}
