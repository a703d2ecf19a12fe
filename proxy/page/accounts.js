/** Calls of the usage page: who asks, and what was used. Nothing here knows the page. */
import { call, failure, headersFor, json } from "./service.js";

const MOST_KEYS = 1000;

/** The JSON that is answered; with `body` the call is a POST. Throws ServiceError. */
export async function ask(path, key, body = null) {
  const sent = body ? { method: "POST", body: JSON.stringify(body) } : {};
  const response = await call(path, { headers: headersFor(key, body ? { "Content-Type": "application/json" } : {}), ...sent });
  if (!response.ok) throw await failure(response);
  return json(response);
}

/**
 * Whose key this is: {role: "admin", keys}, or {role: "key" or "anyone", own}; and whether administration is
 * on. Throws ServiceError, with status 401 where a key is missing or wrong.
 */
export async function whoAsks(key) {
  let administration = true;
  try {
    const { keys } = await ask(`/key/list?return_full_object=true&size=${MOST_KEYS}`, key);
    return { role: "admin", administration, keys };
  } catch (error) {
    administration = error.status !== 404;
    const plain = error.status === 403 && error.code === null;
    if (administration && !plain && !(error.status === 401 && !key)) throw error;
  }
  const own = await ask("/v1/key", key);
  return { role: own.name ? "key" : "anyone", administration, own };
}

/** What was used by `by`, split by `split`, since a day or `7d` back; without `since`, since the month began. */
export function usage(key, { by, split = null, since = null }) {
  const query = new URLSearchParams({ by, ...(split && { split }), ...(since && { since }) });
  return ask(`/v1/usage?${query}`, key);
}

/** The jobs whose outcome nobody knows. */
export const unknownJobs = async (key) => (await ask("/v1/ledger?unknown=true", key)).data;

/** The last jobs, newest first. */
export const lastJobs = async (key) => (await ask("/v1/ledger?jobs=true&limit=100", key)).data;

/** Say what became of a job: "paid" or "free". */
export const resolve = (key, job, outcome) => ask(`/v1/ledger/${encodeURIComponent(job)}`, key, { outcome });

/** Make or change a key: `action` is what stands after `/key/`. */
export const changeKey = (key, action, body) => ask(`/key/${action}`, key, body);

/** What was done to a key, oldest first. */
export const changesOf = async (key, id) => (await ask(`/key/info?key=${encodeURIComponent(id)}`, key)).info.changes;


