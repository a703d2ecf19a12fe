/** Picture bytes: decoding, small copies, names for files. */

const KEPT_BYTES = 4 * 1024 * 1024; // a larger original is kept as a smaller copy
const KEPT_SIDE = 1536; // pixels
const THUMB_SIDE = 400; // pixels

const SIGNATURES = [["image/png", "\x89PNG"], ["image/jpeg", "\xff\xd8\xff"], ["image/webp", "RIFF"], ["image/gif", "GIF8"]];

/** A base64 picture as a Blob of the type that its first bytes tell. */
export function blobOf(b64) {
  const binary = atob(b64);
  const [type] = SIGNATURES.find(([, start]) => binary.startsWith(start)) ?? ["application/octet-stream"];
  return new Blob([Uint8Array.from(binary, (character) => character.charCodeAt(0))], { type });
}

/** The bytes of an answered picture, or null where the browser may show but not read them (another origin). */
export async function bytesOf(picture) {
  if (picture.b64) return blobOf(picture.b64);
  if (new URL(picture.url, location.href).origin !== location.origin) return null;
  const response = await fetch(picture.url).catch(() => null);
  return response?.ok ? response.blob() : null;
}

function loaded(source) {
  return new Promise((resolve) => {
    const image = new Image();
    image.crossOrigin = "anonymous"; // only then may a picture from elsewhere be drawn small and kept
    image.referrerPolicy = "no-referrer";
    image.onload = () => resolve(image);
    image.onerror = () => resolve(null);
    image.src = source;
  });
}

function drawn(image, side) {
  const scale = Math.min(1, side / Math.max(image.naturalWidth, image.naturalHeight));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(image.naturalWidth * scale));
  canvas.height = Math.max(1, Math.round(image.naturalHeight * scale));
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/webp", 0.88));
}

/** What the gallery keeps of a picture: {kept, thumb} as Blobs, either null when the bytes can't be read. */
export async function copiesOf(blob, url) {
  const source = blob ? URL.createObjectURL(blob) : url;
  const image = await loaded(source);
  try {
    if (!image) return { kept: null, thumb: null };
    const kept = blob && blob.size <= KEPT_BYTES ? blob : await drawn(image, KEPT_SIDE);
    return { kept, thumb: await drawn(image, THUMB_SIDE) };
  } finally {
    if (blob) URL.revokeObjectURL(source);
  }
}

/** A file name from the prompt's first words. */
export function fileName(prompt, index, type) {
  const words = prompt.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-+|-+$/g, "").slice(0, 40) || "picture";
  const ending = { "image/jpeg": "jpg", "image/webp": "webp", "image/gif": "gif" }[type] ?? "png";
  return `${words}-${index + 1}.${ending}`;
}
