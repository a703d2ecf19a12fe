// The official JavaScript SDK; RELEASE is the package's name: openai or openai-6.

import assert from "node:assert/strict";
import { createReadStream, readFileSync } from "node:fs";
import { join } from "node:path";

import { check, decoded, fetched, folder, KEY, keyed, open, release, version } from "./checks.mjs";

const { default: OpenAI, AzureOpenAI, toFile } = await import(release);
const sdk = new OpenAI({ baseURL: `${open}/v1`, apiKey: "none" });
const image = join(folder, "image.png");
const mask = join(folder, "mask.png");
const test = (checked, run) => check("openai-node", version(release), checked, run);

await test("generate: url", async () => {
  const made = await sdk.images.generate({ prompt: "a lighthouse", model: "dall-e-3", size: "1024x1792", style: "natural" });
  assert.equal(made.data[0].b64_json, undefined);
  const [width, height] = await fetched(made.data[0].url);
  assert.ok(Math.abs(height / width - 1.75) < 0.05);
  assert.match(made._request_id, /^req_[0-9a-f]{32}$/);
});

await test("generate: b64_json, n=3, usage", async () => {
  const made = await sdk.images.generate({ prompt: "three boats", model: "gpt-image-1", n: 3, size: "1024x1024", seed: 3 });
  assert.deepEqual(made.data.map((item) => decoded(item.b64_json)), Array(3).fill([1024, 1024]));
  assert.equal(new Set(made.data.map((item) => item.b64_json)).size, 3);
  assert.equal(made.usage.total_tokens, made.usage.input_tokens + made.usage.output_tokens);
});

await test("generate: stream, partial_images", async () => {
  const values = { prompt: "a slow tide [seconds:1.5]", model: "imagelabs/sdxl-turbo", stream: true, partial_images: 2 };
  const events = [];
  for await (const event of await sdk.images.generate(values)) events.push(event);
  const last = events.pop();
  assert.equal(last.type, "image_generation.completed");
  assert.equal(decoded(last.b64_json).join("x"), last.size);
  assert.ok(events.length >= 1 && events.length <= 2);
  assert.ok(events.every((event) => event.type === "image_generation.partial_image"));
});

await test("edit: createReadStream (chunked), several, mask, toFile", async () => {
  const values = { prompt: "a red hat", model: "gpt-image-1" };
  for (const given of [
    { image: createReadStream(image) },
    { image: [createReadStream(image), createReadStream(image)] },
    { image: createReadStream(image), mask: createReadStream(mask) },
    { image: await toFile(readFileSync(image), "image.png", { type: "image/png" }) },
  ]) {
    const made = await sdk.images.edit({ ...values, ...given });
    assert.ok(decoded(made.data[0].b64_json)[0] > 0);
  }
});

await test("edit: stream", async () => {
  const values = { prompt: "a red hat", model: "gpt-image-1", image: createReadStream(image), stream: true };
  const events = [];
  for await (const event of await sdk.images.edit(values)) events.push(event);
  assert.deepEqual(events.map((event) => event.type), ["image_edit.completed"]);
  decoded(events[0].b64_json);
});

await test("raw response, models", async () => {
  const { data, response, request_id: id } = await sdk.images.generate({ prompt: "raw", size: "256x256" }).withResponse();
  assert.equal(response.headers.get("x-images-attempts"), "1");
  assert.equal(response.headers.get("x-request-id"), id);
  assert.equal(data.data.length, 1);
  const names = [];
  for await (const model of sdk.models.list()) names.push(model.id);
  assert.ok(names.includes("dall-e-3") && names.includes("imagelabs/sdxl-turbo"));
  assert.equal((await sdk.models.retrieve("imagelabs/sdxl-turbo")).id, "imagelabs/sdxl-turbo");
});

await test("errors: their classes, codes and messages", async () => {
  const cases = [
    [{ model: "nonesuch" }, OpenAI.NotFoundError, 404, "model_not_found"],
    [{ size: "1x1" }, OpenAI.BadRequestError, 400, "invalid_value"],
    [{ prompt: "nude [fault:unsafe]" }, OpenAI.BadRequestError, 400, "content_policy_violation"],
    [{ stream: true, n: 2 }, OpenAI.BadRequestError, 400, "invalid_value"],
    [{ prompt: "[fault:failed] x", model: "imagelabs/sdxl-turbo" }, OpenAI.InternalServerError, 502, "image_generation_failed"],
  ];
  for (const [values, kind, status, code] of cases) {
    await assert.rejects(sdk.images.generate({ prompt: "a lighthouse", ...values }), (error) => {
      assert.ok(error instanceof kind, `${error} is no ${kind.name}`);
      assert.deepEqual([error.status, error.code], [status, code]);
      assert.match(error.message, new RegExp(`^${status} \\w`));
      assert.doesNotMatch(error.message, /no body/);
      return true;
    });
  }
  const stranger = new OpenAI({ baseURL: `${keyed}/v1`, apiKey: "wrong" });
  await assert.rejects(stranger.images.generate({ prompt: "x" }), OpenAI.AuthenticationError);
});

await test("Azure class", async () => {
  const azure = new AzureOpenAI({ endpoint: keyed, apiKey: KEY, apiVersion: "2025-04-01-preview" });
  const made = await azure.images.generate({ prompt: "from Azure", model: "gpt-image-1" });
  decoded(made.data[0].b64_json);
});

await test("chat: whole and streamed", async () => {
  const values = { model: "dall-e-3", messages: [{ role: "user", content: "a windmill" }] };
  const completion = await sdk.chat.completions.create(values);
  await fetched(completion.choices[0].message.content.match(/^!\[image\]\((.+)\)$/)[1]);
  let text = "";
  for await (const chunk of await sdk.chat.completions.create({ ...values, stream: true })) {
    text += chunk.choices[0]?.delta.content ?? "";
  }
  assert.match(text, /^!\[image\]\(http.+\)$/);
});

await test("responses: create, retrieve, previous_response_id, background, delete", async () => {
  const values = { model: "gpt-5", tools: [{ type: "image_generation", size: "1024x1024" }] };
  const client = new OpenAI({ baseURL: `${keyed}/v1`, apiKey: KEY });
  const picture = (response) => {
    assert.equal(response.status, "completed");
    assert.deepEqual(decoded(response.output[0].result), [1024, 1024]);
    return response.output[0];
  };
  const first = await client.responses.create({ ...values, input: "a lighthouse" });
  const again = await client.responses.retrieve(first.id);
  assert.equal(picture(again).result, picture(first).result);
  assert.equal(first.output_text, "");
  assert.equal(picture(await client.responses.create({ ...values, input: "make it red", previous_response_id: first.id })).action, "edit");
  let waiting = await client.responses.create({ ...values, input: "a tide", background: true });
  while (waiting.status !== "completed") waiting = await client.responses.retrieve(waiting.id);
  picture(waiting);
  await client.responses.delete(first.id);
  await assert.rejects(client.responses.retrieve(first.id), OpenAI.NotFoundError);
});

await test("responses: stream, responses.stream", async () => {
  const values = { model: "dall-e-3", input: "a lighthouse" };
  const events = [];
  for await (const event of await sdk.responses.create({ ...values, stream: true })) events.push(event);
  assert.deepEqual(events.map((event) => event.sequence_number), events.map((_, index) => index));
  assert.equal(events.at(-1).type, "response.completed");
  decoded(events.at(-1).response.output[0].result);
  const final = await sdk.responses.stream(values).finalResponse();
  await fetched(final.output_text.match(/^!\[image\]\((.+)\)$/)[1]);
});
