/** The pictures to edit: chosen, dropped, pasted or taken from a result; and the mask on the first. */
import { byId, make, recall, remember } from "./dom.js";
import { draftOf, keepDraft } from "./keep.js";
import { maskOver, paintMask, startMask } from "./mask.js";
import { uploadOf } from "./pictures.js";

const TAB = "tab"; // names this tab's drafts

let pictures = []; // {blob, width, height, url}
let mask = null; // {blob, actions}
let changed = () => {};

const tab = recall(TAB) ?? crypto.getRandomValues(new Uint32Array(2)).join("-");
remember(TAB, tab);

/** What an edit uploads: {images, mask} as Blobs. */
export const uploads = () => ({ images: pictures.map(({ blob }) => blob), mask: mask?.blob ?? null });

/** Under which name this tab keeps the pictures of something: its form, the request that runs. */
export const draftName = (what) => `${tab}:${what}`;

function say(text) {
  byId("pictures-error").textContent = text;
  byId("pictures-error").hidden = !text;
}

function draw() {
  byId("inputs").dataset.count = String(pictures.length);
  byId("inputs-list").replaceChildren(...pictures.map(thumbnail));
  byId("pictures-label").textContent = pictures.length ? "Add more pictures" : "Add pictures to edit";
  changed(pictures.length, Boolean(mask));
}

function update() {
  draw();
  keepDraft(draftName("form"), pictures.length ? { pictures: pictures.map(({ blob, width, height }) => ({ blob, width, height })), mask } : null);
}

function thumbnail(picture, index) {
  const name = `picture ${index + 1}`;
  const shown = make("span", { className: "input-picture" }, make("img", { src: picture.url, alt: `To edit: ${name}` }),
    index === 0 && mask ? maskOver(mask, picture) : "");
  return make("li", {}, shown,
    index === 0
      ? make("button", { type: "button", className: "quiet small", on: { click: paint } }, mask ? "Edit mask" : "Paint a mask")
      : make("span", { className: "hint" }, "as reference"),
    make("button", { type: "button", className: "quiet small", "aria-label": `Remove ${name}`, on: { click: () => remove(index) } }, "Remove"));
}

function paint() {
  paintMask(pictures[0], mask, (painted) => {
    mask = painted;
    update();
    byId("inputs-list").querySelector("button")?.focus();
  });
}

function remove(index) {
  const [gone] = pictures.splice(index, 1);
  URL.revokeObjectURL(gone.url);
  if (index === 0) mask = null;
  update();
  (byId("inputs-list").querySelectorAll("li")[Math.min(index, pictures.length - 1)]?.querySelector("button:last-child") ?? byId("pictures")).focus();
}

/** Take files or Blobs as further pictures to edit. */
async function addPictures(files) {
  say("");
  for (const file of files) {
    const upload = await uploadOf(file);
    if (upload) pictures.push({ ...upload, url: URL.createObjectURL(upload.blob) });
    else say(`${file.name ?? "That"} is no picture that this browser can read.`);
  }
  update();
}

/** Edit this picture, and no other. */
export async function editOnly(blob) {
  pictures.forEach(({ url }) => URL.revokeObjectURL(url));
  [pictures, mask] = [[], null];
  await addPictures([blob]);
}

function startDrop() {
  const form = byId("form");
  const carries = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  let inside = 0;
  const lit = (on) => { byId("inputs").classList.toggle("lit", on); };
  form.addEventListener("dragenter", (event) => { if (carries(event)) { inside += 1; lit(true); } });
  form.addEventListener("dragleave", (event) => { if (carries(event)) { inside = Math.max(0, inside - 1); lit(inside > 0); } });
  // Anywhere on the page: a picture that misses the form would otherwise replace the page.
  document.addEventListener("dragover", (event) => { if (carries(event)) event.preventDefault(); });
  document.addEventListener("drop", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    inside = 0;
    lit(false);
    if (form.contains(event.target)) addPictures([...event.dataTransfer.files]);
  });
  form.addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files].filter((file) => file.type.startsWith("image/"));
    if (files.length) addPictures(files);
  });
}

/** Connect the part of the form; `onChange(count, masked)` is called after each change. Restores this tab's draft. */
export async function startInputs(onChange) {
  changed = onChange;
  startMask();
  startDrop();
  byId("pictures").addEventListener("change", async (event) => {
    const files = [...event.target.files];
    event.target.value = ""; // so that the same file can be chosen again
    await addPictures(files);
  });
  const draft = await draftOf(draftName("form"));
  if (!draft || pictures.length) return;
  pictures = draft.pictures.map((picture) => ({ ...picture, url: URL.createObjectURL(picture.blob) }));
  mask = draft.mask;
  draw();
}
