// SillyTavern's own endpoints for the source "Stable Diffusion Web UI (AUTOMATIC1111)", in an express application.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer, request } from "node:http";
import { fileURLToPath } from "node:url";

import express from "express";

import { check, decoded, KEY, keyed, open } from "./checks.mjs";

const here = (path) => new URL(`./package/${path}`, import.meta.url);
const { version } = JSON.parse(readFileSync(here("package.json")));
const util = await import(here("src/util.js"));
util.setConfigFilePath(fileURLToPath(here("default/config.yaml")));
const { router } = await import(here("src/endpoints/stable-diffusion.js"));
const app = express();
app.use(express.json({ limit: "50mb" }));
app.use("/api/sd", router);
const server = createServer(app);
await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
const own = `http://127.0.0.1:${server.address().port}`;
const LABS = "imagelabs/sdxl-turbo";
const test = (checked, run) => check("SillyTavern's SD Web UI source", version, checked, run);

/** Posts as SillyTavern's page does. */
const post = (path, body) =>
  fetch(`${own}/api/sd/${path}`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });

/** The same, for an answer that is JSON. */
async function told(path, body) {
  const response = await post(path, body);
  assert.equal(response.status, 200, path);
  return response.json();
}

// What its page sends: generateAutoImage in public/scripts/extensions/stable-diffusion/index.js
const drawing = (prompt) => ({
  prompt,
  negative_prompt: "blurry",
  sampler_name: "Euler a",
  scheduler: "automatic",
  steps: 20,
  cfg_scale: 7,
  width: 512,
  height: 512,
  restore_faces: false,
  enable_hr: false,
  hr_upscaler: "Latent",
  hr_scale: 1.5,
  hr_additional_modules: [],
  denoising_strength: 0.7,
  hr_second_pass_steps: 0,
  override_settings: { CLIP_stop_at_last_layers: 1 },
  override_settings_restore_afterwards: true,
  clip_skip: 1,
  save_images: true,
  send_images: true,
  do_not_save_grid: false,
  do_not_save_samples: false,
});

for (const [kind, to] of [
  ["without a key", { url: open, auth: "" }],
  ["with a key", { url: keyed, auth: `anyone:${KEY}` }],
]) {
  await test(`${kind}: connect, menus`, async () => {
    assert.equal((await post("ping", to)).status, 200);
    const models = await told("models", to);
    assert.ok(models.some((model) => model.value === LABS));
    assert.ok((await told("samplers", to)).includes("Euler a"));
    assert.equal((await told("schedulers", to)).length, 1);
    assert.deepEqual(await told("upscalers", to), ["None"]);
    assert.deepEqual(await told("vaes", to), []);
  });

  await test(`${kind}: a model chosen, a picture`, async () => {
    assert.equal((await post("set-model", { ...to, model: LABS })).status, 200);
    assert.equal(await (await post("get-model", to)).text(), LABS);
    const made = await told("generate", { ...to, ...drawing("a tavern") });
    assert.deepEqual(decoded(made.images[0]), [512, 512]);
    assert.equal(JSON.parse(made.info).sd_model_name, LABS);
  });

  await test(`${kind}: stopped, and the job given up`, async () => {
    const headers = to.auth ? { authorization: `Bearer ${KEY}` } : {};
    const running = async () => (await (await fetch(`${to.url}/sdapi/v1/progress`, { headers })).json()).state.job_count;
    const until = async (count) => {
      for (let turn = 0; (await running()) !== count; turn++) {
        assert.ok(turn < 400, "nothing changed");
        await new Promise((later) => setTimeout(later, 10));
      }
    };
    const left = request(`${own}/api/sd/generate`, { method: "POST", headers: { "content-type": "application/json" } });
    left.on("error", () => {});
    left.end(JSON.stringify({ ...to, ...drawing("a slow tavern [seconds:30]") }));
    await until(1);
    left.destroy();
    await until(0);
    assert.equal((await post("set-model", { ...to, model: "dall-e-3" })).status, 200);
  });
}

await test("with a wrong key: an error", async () => {
  assert.equal((await post("ping", { url: keyed, auth: "anyone:wrong" })).status, 500);
});

server.close();
server.closeAllConnections();
