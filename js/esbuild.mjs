// Bundles the front end. The widget: one ES module and one style sheet that load nothing else at run time. The JupyterLab
// extension: one ES module that leaves JupyterLab's own packages to JupyterLab, for its builder to wrap.
import { spawnSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { build } from "esbuild";

const { version } = JSON.parse(await readFile("package.json", "utf8"));

const common = {
  bundle: true,
  format: "esm",
  target: ["chrome111", "edge111", "firefox114", "safari16.4"],
  charset: "utf8",
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "eof",
  logLevel: "warning",
};

await build({
  ...common,
  minify: true,
  entryPoints: [
    { in: "src/widget/index.tsx", out: "widget" },
    { in: "style/opsagent.css", out: "widget" },
  ],
  outdir: "../opsagent_jupyter/static",
});

await build({
  ...common,
  entryPoints: [
    { in: "src/lab/index.ts", out: "index" },
    { in: "style/lab.css", out: "index" },
  ],
  external: ["@jupyterlab/*", "@lumino/*"],
  define: { OPSAGENT_VERSION: JSON.stringify(version) },
  outdir: "lib",
});

const builder = createRequire(import.meta.url).resolve("@jupyter/builder/lib/build-labextension.js");
const jupyterlab = "node_modules/@jupyterlab/core-meta/core.package.json";
const { status } = spawnSync(process.execPath, [builder, "--core-package-file", jupyterlab, "."], { stdio: "inherit" });
process.exitCode = status ?? 1;
