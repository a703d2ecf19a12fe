/** Settings for other programs: what to paste where, for this service's address. */

const LOOPBACK = /^(localhost|127\.|\[::1\])/;

const CONTAINER = "In a container 127.0.0.1 means the container itself. Start images-proxy with a key and --host 0.0.0.0, "
  + "and write host.docker.internal (or this machine’s address) in place of the host name.";

const containerNote = (origin) => (LOOPBACK.test(new URL(origin).hostname) ? [CONTAINER] : []);

function openWebUi({ origin, base, model, size }) {
  return {
    name: "Open WebUI",
    blocks: [["Environment variables", [
      "ENABLE_IMAGE_GENERATION=true", "IMAGE_GENERATION_ENGINE=openai", `IMAGES_OPENAI_API_BASE_URL=${base}`,
      "IMAGES_OPENAI_API_KEY=YOUR_KEY", `IMAGE_GENERATION_MODEL=${model}`, `IMAGE_SIZE=${size}`,
      "", "# pictures made from pictures", "ENABLE_IMAGE_EDIT=true", `IMAGES_EDIT_OPENAI_API_BASE_URL=${base}`,
      "IMAGES_EDIT_OPENAI_API_KEY=YOUR_KEY", `IMAGE_EDIT_MODEL=${model}`,
    ].join("\n")]],
    fields: ["Or in Admin Panel → Settings → Images", [
      ["Engine", "Open AI"], ["API Base URL", base], ["API Key", "YOUR_KEY (must not be empty)"], ["Model", model],
      ["Image Size", size],
    ]],
    notes: ["Settings once saved in the admin panel win over the environment.", ...containerNote(origin)],
  };
}

function libreChat({ origin, base }) {
  return {
    name: "LibreChat",
    blocks: [["In .env", [
      "# the DALL·E 3 tool", `DALLE_REVERSE_PROXY=${base}`, "DALLE3_API_KEY=YOUR_KEY", "",
      "# the OpenAI image tools for agents", `IMAGE_GEN_OAI_BASEURL=${base}`, "IMAGE_GEN_OAI_API_KEY=YOUR_KEY",
      "IMAGE_GEN_OAI_MODEL=gpt-image-1",
    ].join("\n")]],
    notes: ["Then add the tool to an agent and ask for a picture.", ...containerNote(origin)],
  };
}

function lobeChat({ origin, base, model }) {
  return {
    name: "LobeChat",
    fields: ["Settings → AI Service Provider → New API", [
      ["API Proxy URL", base], ["API Key", "YOUR_KEY"], ["Model list", "Fetch models"],
    ]],
    notes: [
      `Then choose ${model} under AI Image. The models appear there with their sizes.`,
      "The Check button sends a chat request, so it proves nothing about pictures.", ...containerNote(origin),
    ],
  };
}

function sillyTavern({ origin, model }) {
  return {
    name: "SillyTavern",
    fields: ["Extensions → Image Generation", [
      ["Source", "stable-diffusion.cpp"], ["URL (without /v1)", origin], ["Then", "Connect"], ["Model", model],
    ]],
    notes: [
      "Its OpenAI source always calls OpenAI itself; this one takes an address.",
      "It sends no key, so it works with a service that asks for none.",
    ],
  };
}

function libraries({ base }) {
  return {
    name: "SDKs",
    blocks: [
      ["For every official OpenAI library", `export OPENAI_BASE_URL=${base}\nexport OPENAI_API_KEY=YOUR_KEY`],
      ["Python", `client = OpenAI(base_url="${base}", api_key="YOUR_KEY")`],
      ["JavaScript", `const client = new OpenAI({ baseURL: "${base}", apiKey: "YOUR_KEY" });`],
      ["Go", `client := openai.NewClient(option.WithBaseURL("${base}"), option.WithAPIKey("YOUR_KEY"))`],
    ],
    notes: ["Some libraries stop waiting after 60 or 100 seconds and ask again. The repeat joins the same job and starts no second one."],
  };
}

/** One page of settings for each program: {name, blocks, fields, notes}. */
export function integrations(context) {
  return [openWebUi, libreChat, lobeChat, sillyTavern, libraries].map((build) => build(context));
}
