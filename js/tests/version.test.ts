// The extension says its release to the server, which refuses another: both files have to name the same one.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";

test("the front end and the Python package are of one release", () => {
  const folder = join(import.meta.dirname, "..");
  const { version } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const project = readFileSync(join(folder, "../pyproject.toml"), "utf8");
  expect(project).toContain(`\nversion = "${version}"\n`);
});
