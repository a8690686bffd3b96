// Writes the TypeScript types of the protocol from its JSON Schema; with --check, fails when they differ.
import { readFile, writeFile } from "node:fs/promises";
import { compile } from "json-schema-to-typescript";

const folder = new URL("src/protocol/", import.meta.url);
const target = new URL("generated.ts", folder);
const schema = JSON.parse(await readFile(new URL("schema.json", folder), "utf8"));
const types = await compile(schema, "Protocol", {
  additionalProperties: false,
  bannerComment: "/* Written by protocol.mjs from schema.json, which is written from protocol.py: do not edit. */",
  style: { printWidth: 120 },
});

if (!process.argv.includes("--check")) {
  await writeFile(target, types);
} else if ((await readFile(target, "utf8")) !== types) {
  console.error("src/protocol/generated.ts is not what schema.json says. Run: npm run protocol");
  process.exitCode = 1;
}
