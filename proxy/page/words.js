/** What the service says in headers and codes, in plain words. */

const NAMES = {
  cfg: "guidance", cfg_scale: "guidance", n: "number of pictures", negative_prompt: "negative prompt",
  output_format: "file type", output_compression: "compression", response_format: "form of answer",
  style_preset: "style preset", aspect_ratio: "aspect ratio",
};

const named = (name) => NAMES[name] ?? name.replaceAll("_", " ");
const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** `size=1792x1024->1024x576; quality=hd->steps 4` as [{name, from, to}] with readable names. */
export function mappedParts(header) {
  return (header ?? "").split(";").map((part) => part.trim()).filter(Boolean).map((part) => {
    const match = /^([^=]+)=(.*?)->(.*)$/.exec(part);
    return match ? { name: capital(named(match[1])), from: match[2], to: match[3] } : { name: part, from: "", to: "" };
  });
}

/** `style, moderation` as one sentence; empty when nothing was dropped. */
export function droppedSentence(header) {
  const names = (header ?? "").split(",").map((name) => name.trim()).filter(Boolean).map(named);
  if (names.length === 0) return "";
  const last = names.pop();
  const list = names.length ? `${names.join(", ")} and ${last}` : last;
  const verb = names.length ? "were" : "was";
  return `${capital(list)} ${verb} left out: this model has no such setting.`;
}

const REASONS = {
  provider_busy: "was busy", provider_unavailable: "could not be reached", provider_auth: "refused the service’s key",
  provider_rejected: "refused the parameters", server_is_overloaded: "took no more work",
};

/** `prodia: provider_busy; prodia-v1: provider_auth` and who answered, as one sentence; empty without a fallback. */
export function fallbackSentence(header, provider) {
  const passed = (header ?? "").split(";").map((part) => part.trim()).filter(Boolean).map((part) => {
    const at = part.lastIndexOf(":");
    const code = part.slice(at + 1).trim();
    return `${part.slice(0, at)}, which ${REASONS[code] ?? `failed (${code})`}`;
  });
  return passed.length ? `${provider} answered instead of ${passed.join("; and of ")}.` : "";
}

/** Seconds in words that fit a small place: 0.8 s, 12 s, 2 min 5 s. */
export function duration(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

/** What a job is doing, from its status and progress. */
export function stateWords(job) {
  if (job.status === "queued") return "Waiting for a place";
  if (job.status === "completed") return "Collecting the picture";
  if (job.n > 1) return `Drawing, ${job.finished ?? 0} of ${job.n} finished`;
  return "Drawing";
}

const TITLES = {
  400: "The request wasn’t accepted", 401: "A key is needed", 403: "This page may not use the service",
  404: "Not found", 413: "Too large", 429: "Too busy right now", 502: "The provider didn’t deliver",
  503: "Can’t take the work right now", 504: "It took too long",
};

/** A heading for an error. */
export function errorTitle(error) {
  if (error.status === 0) return "The service can’t be reached";
  if (error.code === "content_policy_violation") return "Refused for its content";
  if (error.status === 401 && error.code === "invalid_api_key") return "That key isn’t right";
  return TITLES[error.status] ?? "Something went wrong";
}

const ADVICE = {
  content_policy_violation: "Say it in other words. The provider refuses some subjects.",
  model_not_found: "Choose another model from the list.",
  origin_not_allowed: "The owner of this service can allow this address in its configuration.",
  provider_not_configured: "Choose another model, or give the service the token that this model’s provider asks for.",
  provider_auth: "The service’s own token was refused by the provider. Its owner has to renew it.",
  provider_busy: "Nothing was started and nothing billed. Try again in a moment.",
  provider_unavailable: "Nothing was sent and nothing billed. Try again in a moment, or choose another model.",
  submit_outcome_unknown: "The picture may have been started and billed, so it isn’t repeated by itself. Generate again if you want to risk a second one.",
  image_generation_failed: "The provider began and gave up. Generate again, or choose another model.",
  job_lost: "The provider no longer knows the job. Generate again, or choose another model.",
  provider_bad_result: "What came back was not a usable picture. Choose another model, or generate again.",
  provider_bad_response: "The provider’s answer made no sense. Choose another model, or try later.",
  provider_rejected: "Change the value that the message names, or choose another model.",
  generation_pending: "It is still being drawn. Trying again joins the same job and starts no second one.",
  generation_timeout: "The provider never finished. Choose another model, or generate again.",
  rate_limit_exceeded: "This key has used what it may for now. Wait, then try again.",
  server_is_overloaded: "The service is full or shutting down. Try again in a moment.",
};

/** What a person can do about an error. */
export function errorAdvice(error) {
  if (error.status === 0) return "See whether the service still runs and the network is up, then try again.";
  if (error.status === 401) return "Type the key of this service into the field “API key” above.";
  if (ADVICE[error.code]) return ADVICE[error.code];
  if (error.param) return `Change “${named(error.param)}” and generate again.`;
  if (error.status < 500) return "Change the request and generate again.";
  return "Try again. If it stays, give the request id below to whoever runs this service.";
}
