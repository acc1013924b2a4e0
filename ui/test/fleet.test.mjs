// What the heat map shows of a status.
import assert from "node:assert/strict";
import { test } from "node:test";
import { buildSync } from "esbuild";

const bundled = buildSync({ entryPoints: ["src/fleet.ts"], bundle: true, write: false, format: "esm" });
const { fleet, kinds } = await import(`data:text/javascript,${encodeURIComponent(bundled.outputFiles[0].text)}`);

const AT = "2026-01-05T08:30:00Z";
const device = (node, device, holders, more) => ({
  node, device, model: "T4", holders, activity: 0.5, activitySource: "GPU_UTIL", fb: 0.1, watts: 40, celsius: 50, at: AT, ...more,
});
const unknown = (node, gpus, pod, reason) => ({ node, gpus, namespace: pod && "ml", pod, reason, message: reason });
const status = (devices, unknown = [], findings = []) => ({ at: AT, devices, unknown, findings });
const cells = (nodes) => nodes.flatMap((node) => node.gpus.flatMap((gpu) => gpu.cells));

test("a node that nobody measures has a cell for each of its GPUs, held or not", () => {
  const nodes = fleet(status([], [unknown("n1", 3, null, "NeverMeasured"), unknown("n1", 1, "p", "NeverMeasured")]));
  assert.equal(cells(nodes).length, 4);
  assert.ok(cells(nodes).every((cell) => cell.unknown !== null && cell.device === null));
});

test("what a pod holds on a measured node is not drawn twice", () => {
  const nodes = fleet(status([device("n1", "GPU-a", ["ml/p"])], [unknown("n1", 1, "p", "TooShort")]));
  assert.deepEqual(cells(nodes).map((cell) => cell.unknown), ["TooShort"]);
});

test("a shared GPU that names nobody is unknown, not free", () => {
  const nodes = fleet(status([device("n1", "GPU-a", [])], [unknown("n1", 1, "p", "SharedWithoutProcesses")]));
  assert.deepEqual(cells(nodes).map((cell) => cell.unknown), ["SharedWithoutProcesses"]);
});

test("an old reading is unknown", () => {
  const old = device("n1", "GPU-a", ["ml/p"], { at: "2026-01-05T08:20:00Z" });
  assert.match(cells(fleet(status([old])))[0].unknown, /last measured/);
});

test("GPU instances share a GPU by their slices, and findings find their instance", () => {
  const a = device("n1", "GPU-a/1 (3g.20gb)", ["ml/p"]);
  const b = device("n1", "GPU-a/5 (2g.10gb)", []);
  const finding = { node: "n1", devices: ["GPU-a/1 (3g.20gb)"], kind: "Idle" };
  const [node] = fleet(status([a, b], [], [finding]));
  assert.equal(node.gpus.length, 1);
  assert.deepEqual(node.gpus[0].cells.map((cell) => [cell.slices, cell.finding?.kind ?? null]), [[3, "Idle"], [2, null]]);
});

test("every kind of waste is counted as what it is", () => {
  const found = ["Idle", "Stuck", "MemoryHeld", "Idle", "MemoryHeld", "Idle"].map((kind) => ({ kind }));
  assert.equal(kinds(found), "3 Idle, 2 MemoryHeld, 1 Stuck");
  assert.equal(kinds([]), "none");
});
