/** This browser's results, in its own database: nothing of the gallery leaves the browser. */

const STORE = "pictures";

/** The most pictures kept; the oldest go first. */
export const KEPT_PICTURES = 60;

function settled(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

let opening = null;

function database() {
  opening ??= (() => {
    const request = indexedDB.open("images-proxy", 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id", autoIncrement: true });
    return settled(request);
  })();
  return opening;
}

async function store(mode) {
  return (await database()).transaction(STORE, mode).objectStore(STORE);
}

/** Every kept picture, newest first. Rejects when the browser keeps nothing (a private window, storage off). */
export async function kept() {
  return (await settled((await store("readonly")).getAll())).reverse();
}

/** Keep a picture {made, prompt, model, size, seconds, url, kept, thumb}; make room when there are too many. */
export async function keep(record) {
  const pictures = await store("readwrite");
  await settled(pictures.add(record));
  const keys = await settled(pictures.getAllKeys());
  for (const key of keys.slice(0, Math.max(0, keys.length - KEPT_PICTURES))) pictures.delete(key);
}

/** Forget one picture. */
export async function forget(id) {
  await settled((await store("readwrite")).delete(id));
}

/** Forget all. */
export async function forgetAll() {
  await settled((await store("readwrite")).clear());
}
