/** Calls to the service: its models, and one generation followed to its end. */

const POLL_FIRST_MS = 300;
const POLL_LONGEST_MS = 1000;
const POLL_FAILURES = 8; // a short break of the network must not lose a picture that is paid for
const CANCELLED_POST_MS = 4000; // how long a cancelled call may still hand over its job, to be abandoned by name

/** A failure to show: what the service said, or that it can't be reached (status 0). */
export class ServiceError extends Error {
  constructor(message, { status = 0, code = null, param = null, requestId = null, retry = true, retryAfterS = 0 } = {}) {
    super(message);
    Object.assign(this, { status, code, param, requestId, retry, retryAfterS });
  }
}

function headersFor(key, more = {}) {
  if (!key) return more;
  if (!/^[\x21-\x7e]+$/.test(key)) {
    throw new ServiceError("The key holds a character that can’t be sent, such as a blank.", { status: 401, code: "invalid_api_key", retry: false });
  }
  return { ...more, Authorization: `Bearer ${key}` };
}

async function call(path, options) {
  try {
    return await fetch(path, { cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError("No answer came from the service.", { status: 0 });
  }
}

/** The error that a refusing response carries; also when something in front answers with something else. */
async function failure(response) {
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

async function json(response) {
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError("The answer was cut off or is not JSON.", { status: response.status, requestId: response.headers.get("x-request-id") });
  }
}

/** The models that can draw from a prompt alone, as /v1/models lists them. Throws ServiceError. */
export async function listModels(key) {
  const response = await call("/v1/models", { headers: headersFor(key) });
  if (!response.ok) throw await failure(response);
  const body = await json(response);
  const models = Array.isArray(body.data) ? body.data : [];
  return models.filter((model) => !model.operations || model.operations.includes("generate"));
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

/** Poll a job until its answer is there. Throws ServiceError, AbortError. */
async function follow(path, { key, signal, report }) {
  let failures = 0;
  for (let wait = POLL_FIRST_MS; ; wait = Math.min(wait * 1.25, POLL_LONGEST_MS)) {
    await pause(wait, signal);
    try {
      const response = await call(path, { headers: headersFor(key), signal });
      if (response.status !== 202) return response;
      report(await json(response));
      failures = 0;
    } catch (error) {
      failures += 1;
      if (error.name === "AbortError" || failures >= POLL_FAILURES) throw error;
    }
  }
}

function abandon(path, key) {
  return fetch(path, { method: "DELETE", headers: headersFor(key), keepalive: true }).catch(() => null);
}

/** Send the request; when `signal` aborts it gets a moment more, so that a job that did start can be named. */
async function post(body, { key, signal }) {
  const sending = new AbortController();
  const stop = () => setTimeout(() => sending.abort(), CANCELLED_POST_MS);
  signal.addEventListener("abort", stop, { once: true });
  try {
    return await call("/v1/images/generations", {
      method: "POST",
      headers: headersFor(key, { "Content-Type": "application/json", Prefer: "respond-async" }),
      body: JSON.stringify(body),
      signal: sending.signal,
    });
  } finally {
    signal.removeEventListener("abort", stop);
  }
}

function answer(body, headers) {
  const read = (name) => headers.get(name);
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
    attempts: read("x-images-attempts"),
    reattached: read("x-images-reattached") === "true",
    processingMs: Number(read("openai-processing-ms")) || null,
    requestId: read("x-request-id"),
  };
}

/**
 * Make pictures. `report(job)` is called with each sign of progress. Aborting `signal` abandons the job.
 * Throws ServiceError, AbortError.
 */
export async function generate(body, { key, signal, report }) {
  let response = await post(body, { key, signal });
  if (response.status === 202) {
    const job = await json(response);
    // Always on our own origin: the service may know itself under another public address.
    const path = new URL(response.headers.get("location") ?? job.url, location.href).pathname;
    try {
      report(job);
      response = await follow(path, { key, signal, report });
    } catch (error) {
      if (error.name === "AbortError") await abandon(path, key);
      throw error;
    }
  }
  if (!response.ok) throw await failure(response);
  const result = answer(await json(response), response.headers);
  if (result.pictures.length === 0) {
    throw new ServiceError("The answer holds no picture.", { status: response.status, requestId: result.requestId });
  }
  return result;
}
