/** The form's request as code, and settings for other programs. */
import { byId, facts, make } from "./dom.js";
import { integrations } from "./settings.js";
import { curl, javascript, python } from "./snippets.js";
import { codeBlock, tabs } from "./tabs.js";

const LANGUAGES = [["curl", curl], ["Python", python], ["JavaScript", javascript]];

let call = { base: `${location.origin}/v1`, body: {}, keyed: false, images: 0, masked: false };
let redraw = () => {};

/** The form as an example: complete even when nothing was typed. */
function example() {
  const { body } = call;
  return { ...call, body: { ...body, model: body.model || "dall-e-3", prompt: body.prompt || "A lighthouse at dusk" } };
}

function drawIntegration({ blocks = [], fields = null, notes = [] }, name) {
  return [
    ...blocks.map(([title, text]) => make("div", {}, make("h3", {}, title), codeBlock(text, `${name}: ${title}`))),
    fields ? make("div", {}, make("h3", {}, fields[0]),
      facts(fields[1].map(([term, value]) => [term, make("code", {}, value)]))) : "",
    ...notes.map((note) => make("p", { className: "hint" }, note)),
  ];
}

/** Draw both parts anew for a call: {base, body, keyed, images, masked}. */
export function drawCode(wanted) {
  call = wanted;
  redraw();
}

/** Fill both parts of the page. */
export function startCode() {
  const drawCall = tabs(byId("call-tabs"), "Language", LANGUAGES.map(([name, write]) => ({
    name, id: `call-${name.toLowerCase()}`, draw: () => [codeBlock(write(example()), `${name} code`)],
  })));
  const context = () => ({
    origin: location.origin, base: call.base, model: example().body.model, size: call.body.size ?? "1024x1024",
  });
  const drawSettings = tabs(byId("connect-tabs"), "Program", integrations(context()).map(({ name }, index) => ({
    name, id: `connect-${index}`, draw: () => drawIntegration(integrations(context())[index], name),
  })));
  redraw = () => {
    drawCall();
    drawSettings();
  };
}
