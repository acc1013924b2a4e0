// The committed bundle is what the sources give.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

test("dist/ is what src/ builds to", () => {
  const out = mkdtempSync(join(tmpdir(), "ui-"));
  try {
    execFileSync(process.execPath, ["build.mjs", out]);
    assert.deepEqual(readdirSync(out).sort(), readdirSync("dist").sort());
    for (const file of readdirSync(out)) {
      const [built, committed] = [join(out, file), join("dist", file)].map((path) => readFileSync(path));
      assert.ok(built.equals(committed), `dist/${file} is stale: run npm run build`);
    }
  } finally {
    rmSync(out, { recursive: true });
  }
});

test("the bundle reaches for nothing outside", () => {
  for (const file of ["app.js", "app.css", "index.html"]) {
    const text = readFileSync(join("dist", file), "utf8");
    // Names of XML namespaces are no addresses.
    const addresses = (text.match(/https?:\/\/[^"'`)\s]+/g) ?? []).filter((a) => !a.startsWith("http://www.w3.org/"));
    assert.deepEqual(addresses, [], file);
  }
});
