// Bundles the notebook widget: one ES module and one style sheet that load nothing else at run time.
import { build } from "esbuild";

await build({
  entryPoints: [
    { in: "src/widget/index.tsx", out: "widget" },
    { in: "style/opsagent.css", out: "widget" },
  ],
  outdir: "../opsagent_jupyter/static",
  bundle: true,
  minify: true,
  format: "esm",
  target: ["chrome111", "edge111", "firefox114", "safari16.4"],
  charset: "utf8",
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "eof",
  logLevel: "warning",
});
