/** A made picture with all that is known of it, and what can be done with it: the same on the stage and in the gallery. */
import { copyable, facts, make } from "./dom.js";
import { blobOf, bytesOf, copiesOf, fileName } from "./pictures.js";
import { costWords, droppedSentence, duration, fallbackSentence, mappedParts } from "./words.js";

let deeds = {}; // {reuse, sameSeed, edit, vary}(record)

/** Connect what can be done: functions that take a record. */
export const startRecords = (functions) => { deeds = functions; };

const times = (size) => size?.replace("x", " × ");

/** The pictures of a finished request as records: plain data, which the gallery can keep. The key is not among it. */
export function recordsOf(result, { kind, body, generation, seconds }) {
  return result.pictures.map((picture, index) => ({
    kind, request: body, prompt: body.prompt ?? "", model: body.model, made: Date.now(), seconds, generation, index,
    count: result.pictures.length,
    url: picture.url, blob: picture.b64 ? blobOf(picture.b64) : null,
    size: result.size ?? "",
    // Pictures of one request have seeds in sequence.
    seed: result.seed === null ? null : String(BigInt(result.seed) + BigInt(index)),
    cost: result.cost === null ? null : result.cost / result.pictures.length, costSource: result.costSource,
    provider: result.provider, route: result.route, mapped: result.mapped, dropped: result.dropped,
    fallback: result.fallback, requestId: result.requestId,
  }));
}

/** The picture's bytes, or a copy drawn from what the browser shows; null where it may not read them. */
export async function bytesFor(record) {
  return record.kept ?? record.blob ?? (await bytesOf(record)) ?? (await copiesOf(null, record.url)).kept;
}

/** What the record says of how the picture was made, as a list of terms. `brief`: only what tells pictures apart. */
export function about(record, { brief = false } = {}) {
  const settings = Object.entries(record.request ?? {})
    .filter(([name]) => !["model", "prompt", "size", "n", "seed", "response_format"].includes(name))
    .map(([name, value]) => [name.replaceAll("_", " ").replace(/^./, (letter) => letter.toUpperCase()), String(value)]);
  const code = (text) => (text ? make("code", {}, text) : null);
  return facts([
    ["Model", code(record.model)],
    ["Size", times(record.size)],
    ["Seed", record.seed],
    ["Time", record.seconds ? duration(record.seconds) : null],
    ["Cost", costWords(record.cost, record.costSource)],
    ...(brief ? [] : [
      ["Provider", record.provider],
      ["Provider’s model", code(record.route)],
      ...settings,
      ["Made", new Date(record.made).toLocaleString()],
      ["Request id", record.requestId ? copyable(record.requestId, "the request id") : null],
    ]),
  ]);
}

/** A link that saves the picture under a name made of its prompt; where another server has it, one that opens it. */
export function downloadOf(record, address, { small = false } = {}) {
  const blob = record.kept ?? record.blob;
  const own = blob || new URL(address, location.href).origin === location.origin;
  const type = blob?.type ?? `image/${/\.(\w+)$/.exec(record.url)?.[1].replace("jpg", "jpeg") ?? "png"}`;
  const which = record.count > 1 ? ` picture ${record.index + 1}` : "";
  return make("a", {
    className: small ? "button small save" : "button save", href: address, rel: "noopener noreferrer", target: own ? "" : "_blank",
    download: own ? fileName(record.prompt || "variation", record.index ?? 0, type) : "",
    "aria-label": `${own ? "Download" : "Open"}${which || " the picture"}`,
  }, own ? "Download" : "Open original");
}

/** Take a record's prompt and settings into the form. */
export const reuse = (record) => deeds.reuse(record);

/** Buttons for what can be done with the picture; `few`: only the first. `before` is called first, to close what they stand in. */
export function actionsOf(record, { before = () => {}, small = false, few = false } = {}) {
  const which = record.count > 1 && small ? ` picture ${record.index + 1}` : "";
  const button = (text, deed) => make("button", {
    type: "button", className: small ? "small" : "", ...(which ? { "aria-label": `${text}:${which}` } : {}),
    on: { click: () => { before(); deed(record); } },
  }, text);
  return [
    button("Edit this one", deeds.edit),
    button("Variation", deeds.vary),
    ...(few ? [] : again(record, button)),
  ];
}

function again(record, button) {
  // A variation has no words of its own, and pictures kept by an older page have no settings.
  if (!record.request || record.kind === "variation") return [];
  return [button("Use again", deeds.reuse), ...(record.seed === null ? [] : [button("Same seed", deeds.sameSeed)])];
}

/** What was not quite as asked: another provider, changed and left out parameters; or that nothing was. */
export function differences({ mapped, dropped, fallback, provider }) {
  const changed = mappedParts(mapped).map((part) => make("li", {}, make("b", {}, part.name),
    ...(part.to ? [" ", make("code", {}, part.from), " became ", make("code", {}, part.to)] : [])));
  const left = droppedSentence(dropped);
  const instead = fallbackSentence(fallback, provider);
  const items = [
    ...(instead ? [make("li", { className: "fallback" }, instead)] : []),
    ...changed, ...(left ? [make("li", { className: "dropped" }, left)] : []),
  ];
  if (items.length === 0) return make("p", { className: "hint all-kept" }, "Made as asked: nothing was changed or left out.");
  return make("div", { className: "differences" }, make("h3", {}, "Not quite as asked"), make("ul", {}, ...items));
}
