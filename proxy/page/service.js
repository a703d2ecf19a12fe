/** Calls to the service: what it is, and one generation followed to its end. */
import { asFile } from "./pictures.js";

const POLL_FIRST_MS = 300;
const POLL_LONGEST_MS = 1000;
const PATIENCE_MS = 60_000; // a break of the network or a restart must not lose a picture that is paid for
const CANCELLED_POST_MS = 4000; // how long a cancelled call may still hand over its job, to be abandoned by name

/** A failure to show: what the service said, or that it can't be reached (status 0). */
export class ServiceError extends Error {
  constructor(message, { status = 0, code = null, param = null, requestId = null, retry = true, retryAfterS = 0 } = {}) {
    super(message);
    Object.assign(this, { status, code, param, requestId, retry, retryAfterS });
  }
}

/** The headers of a call with this key. Throws ServiceError for one that can't be sent. */
export function headersFor(key, more = {}) {
  if (!key) return more;
  if (!/^[\x21-\x7e]+$/.test(key)) {
    throw new ServiceError("The key holds a character that can’t be sent, such as a blank.", { status: 401, code: "invalid_api_key", retry: false });
  }
  return { ...more, Authorization: `Bearer ${key}` };
}

/** What the service answers, whatever its status. Throws ServiceError, AbortError. */
export async function call(path, options) {
  try {
    return await fetch(path, { cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError("No answer came from the service.", { status: 0 });
  }
}

/** The error that a refusing response carries; also when something in front answers with something else. */
export async function failure(response) {
  const body = await response.json().catch(() => null);
  const error = body && typeof body.error === "object" && body.error ? body.error : {};
  const text = typeof error.message === "string" && error.message ? error.message : "";
  const advice = response.headers.get("x-should-retry");
  return new ServiceError(text || `The service answered ${response.status} ${response.statusText}`.trim() + ".", {
    status: response.status,
    code: error.code ?? null,
    param: error.param ?? null,
    requestId: response.headers.get("x-request-id"),
    retry: advice === null ? response.status >= 500 || response.status === 429 : advice === "true",
    retryAfterS: Number(response.headers.get("retry-after")) || 0,
  });
}

/** The answer's JSON. Throws ServiceError, AbortError. */
export async function json(response) {
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError("The answer was cut off or is not JSON.", { status: response.status, requestId: response.headers.get("x-request-id") });
  }
}

/** What the service is: {models, providers, demo}. Throws ServiceError. */
export async function askService(key) {
  const response = await call("/v1/models", { headers: headersFor(key) });
  if (!response.ok) throw await failure(response);
  const body = await json(response);
  const models = (Array.isArray(body.data) ? body.data : []).filter((model) => model.operations?.length > 0);
  return { models, providers: body.providers ?? [], demo: body.demo === true };
}

// A dry run decodes no picture, so the smallest one stands for whatever will be uploaded.
const DOT = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

/** What a request would become at each of its routes, without sending prompt or pictures; [] if that can't be told. */
export async function forecast({ body, pictures, masked }, key) {
  const dot = { image_url: DOT };
  const uploads = pictures ? { images: Array(pictures).fill(dot), ...(masked ? { mask: dot } : {}) } : {};
  const response = await call(`/v1/images/${pictures ? "edits" : "generations"}`, {
    method: "POST",
    headers: headersFor(key, { "Content-Type": "application/json", "x-images-dry-run": "true" }),
    body: JSON.stringify({ ...body, ...uploads, prompt: "A lighthouse at dusk" }),
  }).catch(() => null);
  const told = response?.ok ? await response.json().catch(() => null) : null;
  return told?.object === "image.dry_run" ? told.routes : [];
}

/** The unfinished picture at an address of the service, or null. */
export async function previewAt(address, key) {
  const { pathname, search } = new URL(address, location.href); // on our own origin, whatever the service calls itself
  const response = await call(pathname + search, { headers: headersFor(key) }).catch(() => null);
  return response?.ok ? response.blob() : null;
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(new DOMException("cancelled", "AbortError"));
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve();
    }, milliseconds);
    if (signal.aborted) stop();
    else signal.addEventListener("abort", stop, { once: true });
  });
}

/** Poll a generation until its answer is there. Throws ServiceError, AbortError. */
async function follow(path, { key, signal, report }) {
  let troubled = 0; // since when nothing but trouble came back
  for (let wait = POLL_FIRST_MS; ; wait = Math.min(wait * 1.25, POLL_LONGEST_MS)) {
    await pause(wait, signal);
    try {
      const response = await call(path, { headers: headersFor(key), signal });
      if (response.status === 404) {
        throw new ServiceError("The service no longer has this picture, or it was restarted.", {
          status: 404, code: "generation_forgotten", retry: false, requestId: response.headers.get("x-request-id"),
        });
      }
      if (response.status !== 202) return response;
      report(await json(response));
      troubled = 0;
    } catch (error) {
      troubled ||= performance.now();
      if (error.name === "AbortError" || error.status >= 400 || performance.now() - troubled > PATIENCE_MS) throw error;
    }
  }
}

function abandon(path, key) {
  return fetch(path, { method: "DELETE", headers: headersFor(key), keepalive: true }).catch(() => null);
}

const PATHS = { generate: "generations", edit: "edits", variation: "variations" };

/** The body of a request, and its type: JSON, or a form when there are pictures. */
function written({ kind, body, images, mask }) {
  if (kind === "generate") return [JSON.stringify(body), { "Content-Type": "application/json" }];
  const form = new FormData();
  for (const [name, value] of Object.entries(body)) form.append(name, value);
  images.forEach((image, index) => form.append(images.length > 1 ? "image[]" : "image", asFile(image, `picture-${index + 1}`)));
  if (mask) form.append("mask", asFile(mask, "mask"));
  return [form, {}]; // the browser writes the type itself, with the boundary
}

/** Send the request; when `signal` aborts it gets a moment more, so that a job that did start can be named. */
async function post(request, { key, signal }) {
  const sending = new AbortController();
  const stop = () => setTimeout(() => sending.abort(), CANCELLED_POST_MS);
  signal.addEventListener("abort", stop, { once: true });
  const [body, type] = written(request);
  try {
    return await call(`/v1/images/${PATHS[request.kind]}`, {
      method: "POST",
      // By its key a repeat finds the pictures that are being made already, and buys none.
      headers: headersFor(key, { ...type, Prefer: "respond-async", "Idempotency-Key": request.repeat }),
      body,
      signal: sending.signal,
    });
  } finally {
    signal.removeEventListener("abort", stop);
  }
}

function answer(body, headers) {
  const read = (name) => headers.get(name);
  const cost = read("x-images-cost") ?? body.usage?.cost ?? null;
  return {
    pictures: (body.data ?? []).map((item) => ({ url: item.url ?? null, b64: item.b64_json ?? null }))
      .filter((picture) => picture.url || picture.b64),
    size: body.size ?? null,
    provider: read("x-images-provider"),
    route: read("x-images-model"),
    mapped: read("x-images-mapped"),
    dropped: read("x-images-dropped"),
    fallback: read("x-images-fallback"),
    seed: read("x-images-seed"),
    attempts: Number(read("x-images-attempts")) || null,
    reattached: read("x-images-reattached") === "true",
    cost: cost === null ? null : Number(cost),
    costSource: read("x-images-cost-source"),
    requestId: read("x-request-id"),
  };
}

/**
 * Make pictures. `request`: {kind, body, images, mask, repeat, path}; with `path`, the generation's own address, it is
 * only followed. `told(path)` is called as soon as that is known, `report(job)` with each sign of progress. Aborting
 * `signal` abandons the job. Throws ServiceError, AbortError.
 */
export async function generate(request, { key, signal, told, report }) {
  let { path } = request;
  let response = path ? null : await post(request, { key, signal });
  const joined = response?.headers.get("x-images-reattached") === "true";
  try {
    if (response?.status === 202) {
      const job = await json(response);
      // Always on our own origin: the service may know itself under another public address.
      path = new URL(response.headers.get("location") ?? job.url, location.href).pathname;
      told(path);
      report(job);
    }
    if (path) response = await follow(path, { key, signal, report });
  } catch (error) {
    if (error.name === "AbortError" && path) await abandon(path, key);
    throw error;
  }
  if (!response.ok) throw await failure(response);
  const result = answer(await json(response), response.headers);
  if (result.pictures.length === 0) {
    throw new ServiceError("The answer holds no picture.", { status: response.status, requestId: result.requestId });
  }
  return { ...result, reattached: result.reattached || joined };
}
