/** A ZIP archive of files that are compressed already: stored as they are, names in UTF-8. */

const TABLE = Uint32Array.from({ length: 256 }, (_, index) => {
  let value = index;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

function crc32(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) value = TABLE[(value ^ byte) & 0xff] ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}

/** Little-endian fields: [bytes, value] each. */
function record(...fields) {
  const view = new DataView(new ArrayBuffer(fields.reduce((total, [size]) => total + size, 0)));
  let at = 0;
  for (const [size, value] of fields) {
    if (size === 4) view.setUint32(at, value, true);
    else view.setUint16(at, value, true);
    at += size;
  }
  return view.buffer;
}

/** The moment in MS-DOS form: time and date, two bytes each. */
function stamp(date) {
  return [(date.getHours() << 11) | (date.getMinutes() << 5) | (date.getSeconds() >> 1),
    ((date.getFullYear() - 1980) << 9) | ((date.getMonth() + 1) << 5) | date.getDate()];
}

/** A Blob with the files [{name, blob, made}], `made` in milliseconds. The layout: PKWARE's APPNOTE.TXT, 4.3. */
export async function zipped(files) {
  const parts = [];
  const directory = [];
  let offset = 0;
  for (const { name, blob, made } of files) {
    const bytes = new Uint8Array(await blob.arrayBuffer());
    const title = new TextEncoder().encode(name);
    const [time, day] = stamp(new Date(made));
    // Version 2.0; flag 11: the name is UTF-8; method 0: stored.
    const common = [[2, 20], [2, 0x0800], [2, 0], [2, time], [2, day], [4, crc32(bytes)], [4, bytes.length], [4, bytes.length], [2, title.length], [2, 0]];
    parts.push(record([4, 0x04034b50], ...common), title, bytes);
    directory.push(record([4, 0x02014b50], [2, 20], ...common, [2, 0], [2, 0], [2, 0], [4, 0], [4, offset]), title);
    offset += 30 + title.length + bytes.length;
  }
  const size = directory.reduce((total, part) => total + part.byteLength, 0);
  const end = record([4, 0x06054b50], [2, 0], [2, 0], [2, files.length], [2, files.length], [4, size], [4, offset], [2, 0]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}
