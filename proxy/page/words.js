/** What the service says in headers and codes, in plain words. */

const NAMES = {
  cfg: "guidance", cfg_scale: "guidance", n: "number of pictures", negative_prompt: "negative prompt",
  output_format: "file type", output_compression: "compression", response_format: "form of answer",
  style_preset: "style preset", aspect_ratio: "aspect ratio",
};

const named = (name) => NAMES[name] ?? name.replaceAll("_", " ");
/** With a capital letter at its beginning. */
export const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** `a, b and c`. */
export function list(names, word = "and") {
  const last = names.at(-1);
  return names.length > 1 ? `${names.slice(0, -1).join(", ")} ${word} ${last}` : last ?? "";
}

/** Dollars to the last digit that says something: $0.0025, $1.20; nothing is free. */
export function dollars(value) {
  if (value === 0) return "free";
  const digits = value >= 1 ? 2 : Math.min(6, 1 - Math.floor(Math.log10(value)));
  return `$${value.toFixed(Math.max(2, digits)).replace(/(\.\d\d+?)0+$/, "$1")}`;
}

const SOURCES = { provider: "told by the provider", config: "by this service’s price list", table: "by the published price" };

/** What a picture cost and who says so; empty when that isn't known. */
export function costWords(value, source) {
  if (source === "unknown") return "not known";
  if (value === null || value === undefined) return "";
  return SOURCES[source] ? `${dollars(value)}, ${SOURCES[source]}` : dollars(value);
}

/** `size=1792x1024->1024x576; quality=hd->steps 4` as [{name, from, to}] with readable names. */
export function mappedParts(header) {
  return (header ?? "").split(";").map((part) => part.trim()).filter(Boolean).map((part) => {
    const match = /^([^=]+)=(.*?)->(.*)$/.exec(part);
    return match ? { name: capital(named(match[1])), from: match[2], to: match[3].replace(/^style_preset /, "") } : { name: part, from: "", to: "" };
  });
}

/** `style, moderation` as one sentence; empty when nothing was dropped. */
export function droppedSentence(header) {
  const names = (header ?? "").split(",").map((name) => name.trim()).filter(Boolean).map(named);
  if (names.length === 0) return "";
  return `${capital(list(names))} ${names.length > 1 ? "were" : "was"} left out: this model has no such setting.`;
}

const sized = (text) => text.replace(/^(\d+)x(\d+)$/, "$1 × $2");

const changesOf = (route) => mappedParts(route.mapped.join(";")).map(({ name, from, to }) => `${name.toLowerCase()} ${sized(from)} → ${sized(to)}`);

/**
 * What would become of the settings, from a dry run's routes: [[heading, text], …]. At the first route; and of the
 * others what would be changed or left out there only. `left` and `changed`: what is known to be without asking.
 */
export function forecastNotes([first, ...others], left, changed) {
  const changes = [...changed, ...(first ? changesOf(first) : [])];
  const dropped = [...left, ...(first?.dropped ?? [])];
  const apart = others.map((route) => [`If ${route.provider} has to answer`, [
    ...changesOf(route).filter((text) => !changes.includes(text)),
    ...[route.dropped.filter((name) => !dropped.includes(name))].filter((names) => names.length).map((names) => `without ${list(names.map(named))}`),
  ].join(", ")]);
  return [["Changed", changes.join(", ")], ["Left out", list(dropped.map(named))], ...apart.slice(0, 2)].filter(([, text]) => text);
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

/** Seconds in words that fit a small place and stay on one line: 0.8 s, 12 s, 2 min 5 s. */
export function duration(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)}\u00a0s`;
  const whole = Math.round(seconds);
  return whole < 60 ? `${whole}\u00a0s` : `${Math.floor(whole / 60)}\u00a0min ${whole % 60}\u00a0s`;
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

/** Ends after which only a new request helps: the advice says to generate again, and that may buy a second picture. */
const ANEW = ["submit_outcome_unknown", "image_generation_failed", "job_lost", "provider_bad_result", "generation_timeout", "generation_forgotten"];

/** Does the advice say to generate again, although the service says not to repeat the call? */
export const advisesAnew = (error) => ANEW.includes(error.code) && !error.retry;

/** A heading for an error. */
export function errorTitle(error) {
  if (error.status === 0) return "The service can’t be reached";
  if (error.code === "generation_forgotten") return "The picture isn’t there any more";
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
  project_spend_limit_exceeded: "This key’s budget is used up. Whoever gave you the key can raise it.",
  organization_spend_limit_exceeded: "The whole service’s budget is used up. Its owner can raise it.",
  price_unknown: "This key has a budget, so only models with a known price can be used. Choose one that names its price.",
  state_unavailable: "Nothing was sent and nothing billed. Try again in a moment; if it stays, tell whoever runs this service.",
  generation_forgotten: "It may have been made and billed. Generate again if you want to risk a second one.",
  server_is_overloaded: "The service is full or shutting down. Try again in a moment.",
};

/** What a person can do about an error. */
export function errorAdvice(error) {
  if (error.status === 0) return "See whether the service still runs and the network is up, then try again.";
  if (error.status === 401) return "Type the key of this service into the field “API key”.";
  if (ADVICE[error.code]) return ADVICE[error.code];
  if (error.param) return `Change “${named(error.param)}” and generate again.`;
  if (error.status < 500) return "Change the request and generate again.";
  return "Try again. If it stays, give the request id below to whoever runs this service.";
}

/** Whether a provider is used, and what to do about one that is not. */
export function providerSentence({ used, why_not: why, how_to_use: how }) {
  return used ? "is used." : `is not used: ${why}.${how ? ` To use it, ${how}.` : ""}`;
}
