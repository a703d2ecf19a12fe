// OpenAI's Agents SDK. It calls its model again until there is a message: one turn must do.

import assert from "node:assert/strict";

import { Agent, imageGenerationTool, run, setDefaultOpenAIClient, setTracingDisabled } from "@openai/agents";
import OpenAI from "openai";

import { check, decoded, fetched, keyed, KEY, version } from "./checks.mjs";

setDefaultOpenAIClient(new OpenAI({ baseURL: `${keyed}/v1`, apiKey: KEY }));
setTracingDisabled(true);
const test = (checked, body) => check("@openai/agents", version("@openai/agents"), checked, body);
const painter = new Agent({ name: "painter", instructions: "You paint.", tools: [imageGenerationTool({ quality: "low" })] });

/** What the one call of the image tool did: generate or edit. */
function action(result) {
  const calls = result.newItems.filter((item) => item.type === "tool_call_item");
  assert.equal(calls.length, 1);
  decoded(calls[0].rawItem.output);
  assert.equal(result.rawResponses.length, 1);
  return calls[0].rawItem.providerData.action;
}

let first;
await test("the default model with imageGenerationTool", async () => {
  first = await run(painter, "a lighthouse");
  assert.equal(action(first), "generate");
  assert.equal(first.finalOutput, "");
});

await test("follow-ups: the whole history, previousResponseId", async () => {
  assert.equal(action(await run(painter, [...first.history, { role: "user", content: "make it red" }])), "edit");
  assert.equal(action(await run(painter, "make it red", { previousResponseId: first.lastResponseId })), "edit");
});

await test("run with stream", async () => {
  const result = await run(painter, "a boat", { stream: true });
  const kinds = [];
  for await (const event of result) kinds.push(event.data?.type ?? event.name);
  await result.completed;
  assert.equal(action(result), "generate");
  assert.ok(kinds.includes("response_done"));
});

await test("an agent with a model of ours and no tool", async () => {
  const result = await run(new Agent({ name: "plain", model: "dall-e-3" }), "a lighthouse");
  await fetched(result.finalOutput.match(/^!\[image\]\((.+)\)$/)[1]);
});
