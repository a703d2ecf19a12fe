/** The form's request as code. Keys are never written into it. Each takes a call: {base, body, keyed, images, masked}. */

// Parameters that the OpenAI libraries know by name; the rest goes into the Python library's extra_body.
const KNOWN = ["model", "prompt", "size", "n", "quality", "style", "output_format", "response_format"];

/** Does the answer to this request hold the bytes themselves? Names with gpt-image do, as OpenAI's own. */
const holdsBytes = (body) =>
  body.response_format ? body.response_format === "b64_json" : (body.model ?? "").includes("gpt-image");

const extension = (body) => ({ jpeg: "jpg", webp: "webp" })[body.output_format] ?? "png";

const quoted = (text) => `'${String(text).replaceAll("'", `'\\''`)}'`;

const files = (images) => Array.from({ length: images }, (_, index) => `picture-${index + 1}.png`);

/** The call for a shell. */
export function curl({ base, body, keyed, images, masked }) {
  const lines = [`curl -sS ${base}/images/${images ? "edits" : "generations"}`];
  if (keyed) lines.push(`  -H "Authorization: Bearer $OPENAI_API_KEY"`);
  if (images) {
    // Not -F: a text that begins with "@" would name a file.
    lines.push(...Object.entries(body).map(([name, value]) => `  --form-string ${quoted(`${name}=${value}`)}`));
    lines.push(...files(images).map((file) => `  -F 'image[]=@${file}'`), ...(masked ? ["  -F mask=@mask.png"] : []));
  } else lines.push(`  -H 'Content-Type: application/json'`, `  -d ${quoted(JSON.stringify(body, null, 2))}`);
  return lines.join(" \\\n");
}

const pythonValue = (value) => (typeof value === "string" ? JSON.stringify(value) : String(value));

/** The call for the Python library. */
export function python({ base, body, keyed, images, masked }) {
  const known = KNOWN.filter((name) => name in body).map((name) => `    ${name}=${pythonValue(body[name])},`);
  const extra = Object.entries(body).filter(([name]) => !KNOWN.includes(name) || (images && name === "style"))
    .map(([name, value]) => `${JSON.stringify(name)}: ${pythonValue(value)}`);
  if (images) known.splice(0, known.length, ...known.filter((line) => !line.startsWith("    style=")));
  if (extra.length) known.push(`    extra_body={${extra.join(", ")}},`);
  if (images) known.unshift(`    image=[${files(images).map((file) => `open("${file}", "rb")`).join(", ")}],`);
  if (masked) known.splice(1, 0, `    mask=open("mask.png", "rb"),`);
  const bytes = holdsBytes(body);
  return [
    "# pip install openai",
    ...(bytes ? ["import base64", "from pathlib import Path", ""] : []),
    "from openai import OpenAI",
    "",
    keyed
      ? `client = OpenAI(base_url="${base}")  # the key comes from OPENAI_API_KEY`
      : `client = OpenAI(base_url="${base}", api_key="none")`,
    `result = client.images.${images ? "edit" : "generate"}(`,
    ...known,
    ")",
    "for number, picture in enumerate(result.data, start=1):",
    bytes
      ? `    Path(f"picture-{number}.${extension(body)}").write_bytes(base64.b64decode(picture.b64_json))`
      : "    print(number, picture.url)",
  ].join("\n");
}

/** The call for the JavaScript library. */
export function javascript({ base, body, keyed, images, masked }) {
  const fields = Object.entries(body).map(([name, value]) => `  ${name}: ${JSON.stringify(value)},`);
  if (images) fields.unshift(`  image: [${files(images).map((file) => `createReadStream("${file}")`).join(", ")}],`);
  if (masked) fields.splice(1, 0, `  mask: createReadStream("mask.png"),`);
  const bytes = holdsBytes(body);
  return [
    "// npm install openai",
    ...(images ? [`import { createReadStream } from "node:fs";`] : []),
    ...(bytes ? [`import { writeFile } from "node:fs/promises";`] : []),
    `import OpenAI from "openai";`,
    "",
    keyed
      ? `const client = new OpenAI({ baseURL: "${base}" }); // the key comes from OPENAI_API_KEY`
      : `const client = new OpenAI({ baseURL: "${base}", apiKey: "none" });`,
    `const result = await client.images.${images ? "edit" : "generate"}({`,
    ...fields,
    "});",
    "for (const [index, picture] of result.data.entries()) {",
    bytes
      ? `  await writeFile(\`picture-\${index + 1}.${extension(body)}\`, Buffer.from(picture.b64_json, "base64"));`
      : "  console.log(index + 1, picture.url);",
    "}",
  ].join("\n");
}
