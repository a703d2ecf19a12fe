/** The form's request as code. Keys are never written into it. */

// Parameters that the OpenAI libraries know by name; the rest goes into the Python library's extra_body.
const KNOWN = ["model", "prompt", "size", "n", "quality", "style", "output_format", "response_format"];

/** Does the answer to this request hold the bytes themselves? Names with gpt-image do, as OpenAI's own. */
const holdsBytes = (body) =>
  body.response_format ? body.response_format === "b64_json" : (body.model ?? "").includes("gpt-image");

const extension = (body) => ({ jpeg: "jpg", webp: "webp" })[body.output_format] ?? "png";

/** The call for a shell. */
export function curl(base, body, keyed) {
  const quoted = JSON.stringify(body, null, 2).replaceAll("'", `'\\''`);
  const lines = [`curl -sS ${base}/images/generations`, `  -H 'Content-Type: application/json'`];
  if (keyed) lines.push(`  -H "Authorization: Bearer $OPENAI_API_KEY"`);
  lines.push(`  -d '${quoted}'`);
  return lines.join(" \\\n");
}

const pythonValue = (value) => (typeof value === "string" ? JSON.stringify(value) : String(value));

/** The call for the Python library. */
export function python(base, body, keyed) {
  const known = KNOWN.filter((name) => name in body).map((name) => `    ${name}=${pythonValue(body[name])},`);
  const extra = Object.entries(body).filter(([name]) => !KNOWN.includes(name))
    .map(([name, value]) => `${JSON.stringify(name)}: ${pythonValue(value)}`);
  if (extra.length) known.push(`    extra_body={${extra.join(", ")}},`);
  const bytes = holdsBytes(body);
  return [
    "# pip install openai",
    ...(bytes ? ["import base64", "from pathlib import Path", ""] : []),
    "from openai import OpenAI",
    "",
    keyed
      ? `client = OpenAI(base_url="${base}")  # the key comes from OPENAI_API_KEY`
      : `client = OpenAI(base_url="${base}", api_key="none")`,
    "result = client.images.generate(",
    ...known,
    ")",
    "for number, picture in enumerate(result.data, start=1):",
    bytes
      ? `    Path(f"picture-{number}.${extension(body)}").write_bytes(base64.b64decode(picture.b64_json))`
      : "    print(number, picture.url)",
  ].join("\n");
}

/** The call for the JavaScript library. */
export function javascript(base, body, keyed) {
  const fields = Object.entries(body).map(([name, value]) => `  ${name}: ${JSON.stringify(value)},`);
  const bytes = holdsBytes(body);
  return [
    "// npm install openai",
    ...(bytes ? [`import { writeFile } from "node:fs/promises";`] : []),
    `import OpenAI from "openai";`,
    "",
    keyed
      ? `const client = new OpenAI({ baseURL: "${base}" }); // the key comes from OPENAI_API_KEY`
      : `const client = new OpenAI({ baseURL: "${base}", apiKey: "none" });`,
    "const result = await client.images.generate({",
    ...fields,
    "});",
    "for (const [index, picture] of result.data.entries()) {",
    bytes
      ? `  await writeFile(\`picture-\${index + 1}.${extension(body)}\`, Buffer.from(picture.b64_json, "base64"));`
      : "  console.log(index + 1, picture.url);",
    "}",
  ].join("\n");
}
