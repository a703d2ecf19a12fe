/** This browser's own database: results, and the pictures that a tab has in its form. Nothing of it leaves the browser. */

const PICTURES = "pictures";
const DRAFTS = "drafts";
const DRAFT_MS = 24 * 3600 * 1000; // a tab that has been closed leaves its draft behind

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
    const request = indexedDB.open("images-proxy", 2);
    request.onupgradeneeded = () => {
      const names = request.result.objectStoreNames;
      if (!names.contains(PICTURES)) request.result.createObjectStore(PICTURES, { keyPath: "id", autoIncrement: true });
      if (!names.contains(DRAFTS)) request.result.createObjectStore(DRAFTS, { keyPath: "id" });
    };
    return new Promise((resolve, reject) => {
      request.onblocked = () => reject(new Error("another tab has an older page open"));
      settled(request).then((opened) => {
        opened.onversionchange = () => opened.close(); // or a tab with a newer page would have to wait
        resolve(opened);
      }, reject);
    });
  })();
  return opening;
}

async function store(name, mode) {
  return (await database()).transaction(name, mode).objectStore(name);
}

/** Every kept picture, newest first. Rejects when the browser keeps nothing (a private window, storage off). */
export async function kept() {
  return (await settled((await store(PICTURES, "readonly")).getAll())).reverse();
}

/** Keep a picture; make room when there are too many. One with an id goes back to where it was. */
export async function keep(record) {
  const pictures = await store(PICTURES, "readwrite");
  await settled(pictures.put(record));
  const keys = await settled(pictures.getAllKeys());
  for (const key of keys.slice(0, Math.max(0, keys.length - KEPT_PICTURES))) pictures.delete(key);
}

/** Forget one picture. */
export async function forget(id) {
  await settled((await store(PICTURES, "readwrite")).delete(id));
}

/** Forget all. */
export async function forgetAll() {
  await settled((await store(PICTURES, "readwrite")).clear());
}

/** Keep a tab's draft under `id`; null forgets it. Drafts of a day ago go. Without storage nothing is kept. */
export async function keepDraft(id, draft) {
  try {
    const drafts = await store(DRAFTS, "readwrite");
    if (draft) await settled(drafts.put({ ...draft, id, saved: Date.now() }));
    else await settled(drafts.delete(id));
    for (const old of await settled(drafts.getAll())) if (old.saved < Date.now() - DRAFT_MS) drafts.delete(old.id);
  } catch {
    // the pictures then last for this page only
  }
}

/** A tab's draft, or null. */
export async function draftOf(id) {
  try {
    return (await settled((await store(DRAFTS, "readonly")).get(id))) ?? null;
  } catch {
    return null;
  }
}
