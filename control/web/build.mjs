// Builds the SDK, the page and the dashboard into dist/, which the server embeds, types into
// dist/types/. With --test, bundles the unit tests into out/ instead, for `node --test`.
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const at = (...parts) => join(here, ...parts);
const tsc = (...options) =>
  execFileSync(process.execPath, [at("node_modules", "typescript", "bin", "tsc"), ...options], {
    cwd: here,
    stdio: "inherit",
  });
const common = { bundle: true, format: "esm", target: "es2022", logLevel: "warning" };

if (process.argv.includes("--test")) {
  rmSync(at("out"), { recursive: true, force: true });
  const tests = readdirSync(at("test")).filter((name) => name.endsWith(".test.ts"));
  await build({
    ...common,
    entryPoints: tests.map((name) => at("test", name)),
    outdir: at("out"),
    outExtension: { ".js": ".mjs" },
    platform: "node",
    sourcemap: "inline",
  });
} else {
  tsc("--noEmit");
  rmSync(at("dist"), { recursive: true, force: true });
  mkdirSync(at("dist"));
  await build({
    ...common,
    entryPoints: [at("sdk", "index.ts")],
    outfile: at("dist", "strait.js"),
    minifySyntax: true,
  });
  // The page imports ./strait.js as any application would: it is no part of the bundle.
  await build({
    ...common,
    entryPoints: [at("page", "page.ts")],
    outfile: at("dist", "page.js"),
    plugins: [
      {
        name: "sdk-beside-the-page",
        setup: ({ onResolve }) =>
          onResolve({ filter: /sdk\/index\.js$/ }, () => ({ path: "./strait.js", external: true })),
      },
    ],
    minifySyntax: true,
  });
  for (const name of ["index.html", "colours.css", "page.css", "icon.svg"]) {
    copyFileSync(at("page", name), at("dist", name));
  }
  await build({
    ...common,
    entryPoints: [at("dashboard", "dashboard.ts")],
    outdir: at("dist", "dashboard"),
    minifySyntax: true,
  });
  for (const name of ["index.html", "dashboard.css"]) {
    copyFileSync(at("dashboard", name), at("dist", "dashboard", name));
  }
  tsc("--project", "tsconfig.types.json");
}
