/** Picture bytes: decoding, small copies, what may be uploaded, names for files. */

const KEPT_BYTES = 4 * 1024 * 1024; // a larger original is kept as a smaller copy
const KEPT_SIDE = 1536; // pixels
const THUMB_SIDE = 400; // pixels
const SENT_PIXELS = 16_000_000; // a little less than the service takes by default
const SENT_BYTES = 20 * 1024 * 1024;
const SENT_TYPES = ["image/png", "image/jpeg", "image/webp"];
const EXIF_WITHIN = 65_536; // bytes: a JPEG's first segments

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

function drawn(image, scale, type) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(image.naturalWidth * Math.min(1, scale)));
  canvas.height = Math.max(1, Math.round(image.naturalHeight * Math.min(1, scale)));
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob((blob) => resolve({ blob, width: canvas.width, height: canvas.height }), type, 0.93));
}

const within = (image, side) => side / Math.max(image.naturalWidth, image.naturalHeight);

/** What the gallery keeps of a picture: {kept, thumb} as Blobs, either null when the bytes can't be read. */
export async function copiesOf(blob, url) {
  const source = blob ? URL.createObjectURL(blob) : url;
  const image = await loaded(source);
  try {
    if (!image) return { kept: null, thumb: null, size: null };
    const kept = blob && blob.size <= KEPT_BYTES ? blob : (await drawn(image, within(image, KEPT_SIDE), "image/webp")).blob;
    const thumb = (await drawn(image, within(image, THUMB_SIDE), "image/webp")).blob;
    return { kept, thumb, size: `${image.naturalWidth}x${image.naturalHeight}` };
  } finally {
    if (blob) URL.revokeObjectURL(source);
  }
}

async function hasExif(blob) {
  const head = new Uint8Array(await blob.slice(0, EXIF_WITHIN).arrayBuffer());
  return blob.type === "image/jpeg" && new TextDecoder("latin1").decode(head).includes("Exif\0");
}

/**
 * A chosen file as it is uploaded: {blob, width, height}, or null when the browser can't read it. Drawn anew where
 * the service would not take it, and where a camera has written into it: how it is to be turned, which a mask could
 * not follow, and the place where it was taken.
 */
export async function uploadOf(file) {
  const source = URL.createObjectURL(file);
  try {
    const image = await loaded(source);
    if (!image) return null;
    const [width, height] = [image.naturalWidth, image.naturalHeight];
    const plain = SENT_TYPES.includes(file.type) && file.size <= SENT_BYTES && width * height <= SENT_PIXELS;
    if (plain && !(await hasExif(file))) return { blob: file, width, height };
    return await drawn(image, Math.sqrt(SENT_PIXELS / (width * height)), file.type === "image/jpeg" ? file.type : "image/png");
  } finally {
    URL.revokeObjectURL(source);
  }
}

const endingOf = (type) => ({ "image/jpeg": "jpg", "image/webp": "webp", "image/gif": "gif" })[type] ?? "png";

/** The bytes as a file to be uploaded. */
export const asFile = (blob, name) => new File([blob], `${name}.${endingOf(blob.type)}`, { type: blob.type });

/** A file name from the prompt's first words. */
export function fileName(prompt, index, type) {
  const words = prompt.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 40).replace(/^-+|-+$/g, "") || "picture";
  return `${words}-${index + 1}.${endingOf(type)}`;
}
