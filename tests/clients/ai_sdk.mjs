// The AI SDK with its two OpenAI providers; RELEASE is its major version: 6 or 7.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";

import { check, decoded, fetched, folder, keyed, KEY, open, release, sizeOf, version } from "./checks.mjs";

const names = {
  6: ["ai", "@ai-sdk/openai", "@ai-sdk/openai-compatible"],
  7: ["ai-7", "ai-sdk-openai-4", "ai-sdk-openai-compatible-3"],
}[release];
const [core, { createOpenAI }, { createOpenAICompatible }] = await Promise.all(names.map((name) => import(name)));
const generateImage = core.experimental_generateImage ?? core.generateImage;
const installed = names.map(version);
const providers = {
  "@ai-sdk/openai": [createOpenAI({ baseURL: `${keyed}/v1`, apiKey: KEY }), installed[1], "openai"],
  "@ai-sdk/openai-compatible": [
    createOpenAICompatible({ name: "proxy", baseURL: `${keyed}/v1`, apiKey: KEY, includeUsage: true }),
    installed[2],
    "proxy",
  ],
};
const image = readFileSync(join(folder, "image.png"));

function drawing(provider, name) {
  return provider.imageModel ? provider.imageModel(name) : provider.image(name);
}

for (const [client, [provider, number, options]] of Object.entries(providers)) {
  const test = (checked, run) => check(client, `${number} (ai ${installed[0]})`, checked, run);

  await test("generateImage: dall-e-3, gpt-image-1", async () => {
    for (const name of ["dall-e-3", "gpt-image-1"]) {
      const made = await generateImage({ model: drawing(provider, name), prompt: "a lighthouse", size: "1024x1024" });
      assert.deepEqual(sizeOf(made.image.uint8Array), [1024, 1024]);
      assert.equal(made.image.mediaType, "image/png");
    }
  });

  await test("generateImage: n=2 of a name it does not know", async () => {
    const made = await generateImage({ model: drawing(provider, "flux-schnell"), prompt: "two boats", n: 2 });
    assert.equal(new Set(made.images.map((one) => one.base64)).size, 2);
    made.images.forEach((one) => sizeOf(one.uint8Array));
  });

  // The other provider passes only the options that it knows.
  if (client === "@ai-sdk/openai-compatible") await test("generateImage: provider options (seed)", async () => {
    const values = { model: drawing(provider, "flux-schnell"), prompt: "a boat", providerOptions: { [options]: { seed: 11 } } };
    const [first, second] = [await generateImage(values), await generateImage(values)];
    assert.ok(first.image.base64 === second.image.base64, "the seed made no difference");
  });

  await test("generateImage: with pictures (edit)", async () => {
    const prompt = { text: "a red hat", images: [image, image] };
    const made = await generateImage({ model: drawing(provider, "gpt-image-1"), prompt });
    sizeOf(made.image.uint8Array);
  });

  await test("errors: status, message, no retry", async () => {
    const call = generateImage({ model: drawing(provider, "nonesuch"), prompt: "a lighthouse" });
    await assert.rejects(call, (error) => {
      assert.equal(error.name, "AI_APICallError");
      assert.equal(error.statusCode, 404);
      assert.match(error.message, /nonesuch/);
      return true;
    });
  });

  await test("streamText: chat", async () => {
    const model = provider.chat ? provider.chat("dall-e-3") : provider.chatModel("dall-e-3");
    const result = core.streamText({ model, prompt: "a windmill" });
    assert.match(await result.text, /^!\[image\]\(http.+\)$/);
    assert.ok((await result.usage).totalTokens > 0);
  });
}

{
  const [provider, number] = providers["@ai-sdk/openai"];
  const test = (checked, run) => check("@ai-sdk/openai", `${number} (ai ${installed[0]})`, checked, run);
  const tools = { image_generation: provider.tools.imageGeneration({ outputFormat: "png", quality: "low", partialImages: 1 }) };
  const made = (result) => {
    assert.equal(result.steps.length, 1);
    assert.equal(result.staticToolResults.length, 1);
    decoded(result.staticToolResults[0].output.result);
  };

  await test("the default model: generateText, streamText", async () => {
    const values = { model: provider("dall-e-3"), prompt: "a windmill" };
    const { text, usage } = await core.generateText(values);
    await fetched(text.match(/^!\[image\]\((.+)\)$/)[1]);
    assert.ok(usage.totalTokens > 0);
    assert.match(await core.streamText(values).text, /^!\[image\]\(http.+\)$/);
  });

  await test("the default model: with a picture", async () => {
    const content = [{ type: "text", text: "a red hat" }, { type: "file", data: image, mediaType: "image/png" }];
    const { text } = await core.generateText({ model: provider("dall-e-3"), messages: [{ role: "user", content }] });
    assert.match(text, /^!\[image\]/);
  });

  await test("tools.imageGeneration: generate, follow-ups, stream, forced", async () => {
    const values = { model: provider("gpt-5"), tools };
    const first = await core.generateText({ ...values, prompt: "a windmill" });
    made(first);
    const said = [{ role: "user", content: "a windmill" }, ...(first.responseMessages ?? first.response.messages)];
    made(await core.generateText({ ...values, messages: [...said, { role: "user", content: "make it red" }] }));
    const previousResponseId = first.providerMetadata.openai.responseId;
    const toolChoice = { type: "tool", toolName: "image_generation" };
    made(await core.generateText({ ...values, prompt: "red", toolChoice, providerOptions: { openai: { previousResponseId } } }));
    const kinds = [];
    for await (const part of core.streamText({ ...values, prompt: "a windmill" }).fullStream) kinds.push(part.type);
    assert.ok(kinds.includes("tool-result") && kinds.at(-1) === "finish" && !kinds.includes("error"), kinds.join());
  });
}

await check("@ai-sdk/openai-compatible", `${installed[2]} (ai ${installed[0]})`, "without a key", async () => {
  const provider = createOpenAICompatible({ name: "proxy", baseURL: `${open}/v1` });
  const made = await generateImage({ model: drawing(provider, "gpt-image-1"), prompt: "a lighthouse" });
  sizeOf(made.image.uint8Array);
});
