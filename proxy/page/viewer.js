/** A dialog for pictures: one large, with its neighbours a key away, or several side by side. */
import { byId, make } from "./dom.js";
import { about, actionsOf, differences, downloadOf } from "./records.js";

let records = [];
let at = 0;
let more = () => [];
let addresses = [];

function addressOf(record) {
  const blob = record.kept ?? record.blob;
  if (!blob) return record.url;
  addresses.push(URL.createObjectURL(blob));
  return addresses.at(-1);
}

function release() {
  addresses.forEach((address) => URL.revokeObjectURL(address));
  addresses = [];
}

const close = () => byId("viewer").close();

function large(record, address) {
  const lost = make("p", { className: "hint", hidden: true },
    record.thumb ? "The original is no longer at its address. This is the small copy that the browser kept." : "The picture can’t be loaded from its address.");
  const image = make("img", { src: address, alt: record.prompt || "A variation", referrerPolicy: "no-referrer" });
  image.addEventListener("error", () => {
    lost.hidden = false;
    if (!record.thumb) return;
    addresses.push(URL.createObjectURL(record.thumb));
    image.src = addresses.at(-1);
  }, { once: true });
  return [make("div", { className: "viewer-picture" }, image), lost];
}

function draw() {
  release();
  const record = records[at];
  const address = addressOf(record);
  byId("viewer").dataset.mode = "one";
  byId("viewer-title").textContent = records.length > 1 ? `Picture ${at + 1} of ${records.length}` : "Picture";
  for (const [id, edge] of [["viewer-previous", 0], ["viewer-next", records.length - 1]]) {
    byId(id).hidden = records.length < 2;
    byId(id).disabled = at === edge;
  }
  byId("viewer-body").replaceChildren(
    ...large(record, address),
    make("p", { className: "viewer-prompt" }, record.prompt),
    make("div", { className: "actions" }, downloadOf(record, address, { small: true }), ...actionsOf(record, { before: close, small: true }), ...more(record, close)),
    differences(record), about(record));
}

function step(by) {
  const wanted = at + by;
  if (byId("viewer").dataset.mode !== "one" || wanted < 0 || wanted >= records.length) return;
  at = wanted;
  draw();
  if (document.activeElement === document.body) byId("viewer-close").focus();
}

/** Show one of `list` large; `extra(record, close)` gives further buttons. */
export function view(list, index, extra = () => []) {
  [records, at, more] = [list, index, extra];
  draw();
  byId("viewer").showModal();
  byId("viewer-close").focus();
}

/** Show several side by side, with what tells them apart. */
export function compare(list) {
  release();
  byId("viewer").dataset.mode = "several";
  byId("viewer-title").textContent = `${list.length} pictures side by side`;
  byId("viewer-previous").hidden = byId("viewer-next").hidden = true;
  const [{ prompt }] = list;
  const alike = list.every((record) => record.prompt === prompt); // then it tells nothing apart, and is said once
  byId("viewer-body").replaceChildren(alike ? make("p", { className: "viewer-prompt" }, prompt) : "", make("div", { className: "compared" }, ...list.map((record) =>
    make("figure", {}, make("img", { src: addressOf(record), alt: record.prompt || "A variation", referrerPolicy: "no-referrer" }),
      make("figcaption", {}, alike ? "" : make("p", { className: "viewer-prompt" }, record.prompt), about(record, { brief: true }))))));
  byId("viewer").showModal();
  byId("viewer-close").focus();
}

/** Connect the dialog. */
export function startViewer() {
  const viewer = byId("viewer");
  byId("viewer-close").addEventListener("click", close);
  byId("viewer-previous").addEventListener("click", () => step(-1));
  byId("viewer-next").addEventListener("click", () => step(1));
  viewer.addEventListener("click", (event) => { if (event.target === viewer) close(); });
  viewer.addEventListener("close", release);
  viewer.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
}
