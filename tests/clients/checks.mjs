// What the JavaScript clients' scripts share. Run as: node SCRIPT RELEASE OPEN KEYED FOLDER

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

export const [release, open, keyed, folder] = process.argv.slice(2);
export const KEY = "sk-clients";

/** The version of an installed package. */
export function version(name) {
  return JSON.parse(readFileSync(new URL(`./node_modules/${name}/package.json`, import.meta.url))).version;
}

/** Runs a check and prints its outcome as a line of JSON; the others go on after a failure. */
export async function check(client, installed, checked, run) {
  let problem = "";
  try {
    await run();
  } catch (error) {
    console.error(String(error?.stack ?? error).slice(0, 2000));
    problem = `${error?.name}: ${error?.message}`.split("\n")[0].slice(0, 200) || "failed";
  }
  console.log(JSON.stringify({ client, version: installed, checked, problem }));
}

/** Width and height of a PNG, read from its bytes. */
export function sizeOf(bytes) {
  const data = Buffer.from(bytes);
  assert.equal(data.subarray(0, 8).toString("latin1"), "\x89PNG\r\n\x1a\n");
  assert.equal(data.subarray(-8, -4).toString("latin1"), "IEND", "the picture is cut off");
  return [data.readUInt32BE(16), data.readUInt32BE(20)];
}

/** Width and height of a PNG in base64. */
export function decoded(text) {
  assert.match(text, /^[A-Za-z0-9+/]+={0,2}$/);
  return sizeOf(Buffer.from(text, "base64"));
}

/** Width and height of the PNG at an address. */
export async function fetched(address) {
  const response = await fetch(address);
  assert.equal(response.status, 200);
  assert.equal(response.headers.get("content-type"), "image/png");
  return sizeOf(await response.arrayBuffer());
}
