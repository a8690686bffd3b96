// Both languages read the same files and say the same of them.
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import Ajv from "ajv/dist/2020";
import addFormats from "ajv-formats";
import { describe, expect, test } from "vitest";
import { files } from "../../tests/golden";
import { WIRE } from ".";

const schema = JSON.parse(readFileSync(join(import.meta.dirname, "schema.json"), "utf8"));
const ajv = new Ajv({ keywords: ["discriminator"] });
addFormats(ajv);
ajv.addSchema(schema, "protocol");
const asked = ajv.compile({ $ref: "protocol#/$defs/Asked" });
const told = ajv.compile({ $ref: "protocol#/$defs/Told" });

function isRead(content: unknown): boolean {
  const isCommand = typeof content === "object" && content !== null && "command" in content;
  return isCommand ? asked(content) : told(content);
}

describe("the protocol", () => {
  test.each(files("good"))("reads %s", (_, content) => {
    expect(isRead(content), ajv.errorsText(asked.errors ?? told.errors)).toBe(true);
  });

  test.each(files("bad"))("refuses %s", (_, content) => {
    expect(isRead(content)).toBe(false);
  });

  test("has types that were generated from the committed schema", () => {
    const js = join(import.meta.dirname, "../..");
    expect(() => execFileSync(process.execPath, ["protocol.mjs", "--check"], { cwd: js, stdio: "pipe" })).not.toThrow();
  }, 30_000);

  test("has one version of the wire", () => {
    expect(schema.$defs.Asked.properties.v.const).toBe(WIRE);
    expect(schema.$defs.Told.properties.v.const).toBe(WIRE);
  });
});
