/** Painting a mask: the part of a picture that an edit may change. Strokes are kept, so each can be taken back. */
import { byId, make } from "./dom.js";

const SHOWN_SIDE = 1024; // pixels: the mask is painted at this size and written at the picture's own
const STEP = 0.02; // of the longer side: how far an arrow key moves the brush

let actions = []; // {erase, size, points: [[x, y], …]} in shares of the picture, or {invert: true}
let picture = null;
let erase = false;
let cursor = [0.5, 0.5];
let finish = () => {};

const canvas = () => byId("mask-canvas");
const brush = () => Number(byId("mask-size").value) / 100;

/** Draw the actions on a canvas: painted is opaque. */
function replay(target, list) {
  const pen = target.getContext("2d");
  const [width, height] = [target.width, target.height];
  const longer = Math.max(width, height);
  pen.clearRect(0, 0, width, height);
  for (const action of list) {
    pen.globalCompositeOperation = action.invert ? "xor" : action.erase ? "destination-out" : "source-over";
    if (action.invert) {
      pen.fillRect(0, 0, width, height);
      continue;
    }
    pen.lineWidth = action.size * longer;
    pen.lineCap = pen.lineJoin = "round";
    pen.beginPath();
    action.points.forEach(([x, y], index) => (index ? pen.lineTo(x * width, y * height) : pen.moveTo(x * width, y * height)));
    if (action.points.length === 1) pen.lineTo(action.points[0][0] * width, action.points[0][1] * height + 0.01);
    pen.stroke();
  }
}

/** The mask as the API takes it: a PNG of the picture's size, transparent where to edit; null when nothing is painted. */
async function written() {
  const painted = Object.assign(document.createElement("canvas"), { width: picture.width, height: picture.height });
  replay(painted, actions);
  const small = Object.assign(document.createElement("canvas"), { width: 64, height: 64 });
  const look = small.getContext("2d");
  look.drawImage(painted, 0, 0, 64, 64);
  if (!look.getImageData(0, 0, 64, 64).data.some((value, index) => index % 4 === 3 && value > 0)) return null;
  const pen = Object.assign(document.createElement("canvas"), { width: picture.width, height: picture.height }).getContext("2d");
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, picture.width, picture.height);
  pen.globalCompositeOperation = "destination-out";
  pen.drawImage(painted, 0, 0);
  return new Promise((resolve) => pen.canvas.toBlob(resolve, "image/png"));
}

function show() {
  replay(canvas(), actions);
  byId("mask-undo").disabled = byId("mask-clear").disabled = actions.length === 0;
}

function ring([x, y], seen = true) {
  const { width, height } = canvas().getBoundingClientRect();
  const side = Math.max(width, height) * brush();
  Object.assign(byId("mask-ring").style, { left: `${x * width}px`, top: `${y * height}px`, width: `${side}px`, height: `${side}px` });
  byId("mask-ring").hidden = !seen;
}

function begin(point) {
  actions.push({ erase, size: brush(), points: [point] });
  show();
}

function go(point) {
  actions.at(-1).points.push(point);
  show();
}

function add(action) {
  actions.push(action);
  show();
}

function choose(wanted) {
  erase = wanted;
  byId("mask-paint").setAttribute("aria-pressed", String(!erase));
  byId("mask-erase").setAttribute("aria-pressed", String(erase));
}

function place(event) {
  const box = canvas().getBoundingClientRect();
  cursor = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  return cursor;
}

function startPainting() {
  let painting = false;
  canvas().addEventListener("pointerdown", (event) => {
    if (event.button) return;
    painting = true;
    canvas().setPointerCapture(event.pointerId);
    begin(place(event));
  });
  canvas().addEventListener("pointermove", (event) => {
    ring(place(event));
    if (painting) go(cursor);
  });
  for (const end of ["pointerup", "pointercancel"]) canvas().addEventListener(end, () => { painting = false; });
  canvas().addEventListener("pointerleave", () => ring(cursor, false));
}

/** Arrows move the brush, Shift paints on the way, Space and Enter paint where it is. */
function startKeys() {
  canvas().addEventListener("focus", () => ring(cursor));
  canvas().addEventListener("blur", () => ring(cursor, false));
  canvas().addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.key === " " || event.key === "Enter") begin(cursor);
    else if (way) {
      const from = cursor;
      cursor = way.map((step, axis) => Math.min(1, Math.max(0, cursor[axis] + step * STEP)));
      if (event.shiftKey) {
        begin(from);
        go(cursor);
      }
    } else return;
    event.preventDefault();
    ring(cursor);
  });
}

/** Connect the dialog. */
export function startMask() {
  const dialog = byId("mask");
  startPainting();
  startKeys();
  byId("mask-paint").addEventListener("click", () => choose(false));
  byId("mask-erase").addEventListener("click", () => choose(true));
  byId("mask-undo").addEventListener("click", () => { actions.pop(); show(); });
  byId("mask-invert").addEventListener("click", () => add({ invert: true }));
  byId("mask-clear").addEventListener("click", () => { actions = []; show(); });
  byId("mask-size").addEventListener("input", () => ring(cursor));
  byId("mask-cancel").addEventListener("click", () => dialog.close());
  byId("mask-done").addEventListener("click", async () => {
    const blob = await written();
    dialog.close();
    finish(blob ? { blob, actions } : null);
  });
}

/** Paint on `given` ({url, width, height}), beginning with an earlier mask's actions; `onDone(mask)` gets the new one. */
export function paintMask(given, earlier, onDone) {
  [picture, actions, finish] = [given, [...(earlier?.actions ?? [])], onDone];
  const scale = Math.min(1, SHOWN_SIDE / Math.max(given.width, given.height));
  canvas().width = Math.max(1, Math.round(given.width * scale));
  canvas().height = Math.max(1, Math.round(given.height * scale));
  byId("mask-stage").style.setProperty("--ratio", given.width / given.height);
  byId("mask-picture").src = given.url;
  choose(false);
  byId("mask").showModal();
  show();
  canvas().focus();
}

/** A small picture of a mask's painted part, to lie over the picture's own small one. */
export function maskOver({ actions: list }, { width, height }) {
  const scale = 160 / Math.max(width, height);
  const small = make("canvas", { width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale)), className: "mask-over" });
  replay(small, list);
  return small;
}
