import type { Device, Finding, Status, Unknown } from "./status";

/** A node as the heat map draws it. */
export interface FleetNode {
  name: string;
  model: string | null;
  gpus: Gpu[];
}

/** A GPU: one cell, or one for each GPU instance. */
export interface Gpu {
  id: string;
  cells: Cell[];
}

/** What can be pointed at. */
export interface Cell {
  /** Unique on the page. */
  id: string;
  node: string;
  /** `null` for a GPU that nobody measures. */
  device: Device | null;
  /** Compute slices of a GPU instance, else 7. */
  slices: number;
  /** Waste of the pod that holds it. */
  finding: Finding | null;
  /** Why its use is not known. */
  unknown: string | null;
}

/** Readings older than this are not believed. */
const STALE_MS = 90_000;

/** How many findings there are of each kind, most first: `3 Idle, 1 Stuck`. */
export function kinds(findings: Finding[]): string {
  const counts = new Map<string, number>();
  for (const { kind } of findings) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  const sorted = [...counts].sort(([a, x], [b, y]) => y - x || (a < b ? -1 : 1));
  return sorted.map(([kind, count]) => `${count} ${kind}`).join(", ") || "none";
}

/** Groups devices and unmeasured GPUs by node and GPU, in the order of their names. */
export function fleet(status: Status): FleetNode[] {
  const findings = new Map<string, Finding>();
  for (const finding of status.findings) {
    for (const device of finding.devices) findings.set(`${finding.node} ${device}`, finding);
  }
  const nodes = new Map<string, FleetNode>();
  const node = (name: string): FleetNode => {
    let found = nodes.get(name);
    if (!found) nodes.set(name, (found = { name, model: null, gpus: [] }));
    return found;
  };
  const pods = new Map(status.unknown.filter((u) => u.pod).map((u) => [podName(u), u]));
  for (const device of status.devices) {
    const into = node(device.node);
    into.model ??= device.model;
    const uuid = device.device.split("/")[0] ?? device.device;
    let gpu = into.gpus.find((gpu) => gpu.id === uuid);
    if (!gpu) into.gpus.push((gpu = { id: uuid, cells: [] }));
    gpu.cells.push({
      id: `${device.node} ${device.device}`,
      node: device.node,
      device,
      slices: slices(device.device),
      finding: findings.get(`${device.node} ${device.device}`) ?? null,
      unknown: whyUnknown(device, pods, status.at),
    });
  }
  markShared(nodes, status);
  const measured = new Set(nodes.keys());
  for (const unknown of status.unknown) {
    // Of a measured node, what pods hold has a cell already.
    if (measured.has(unknown.node) && unknown.pod !== null) continue;
    const into = node(unknown.node);
    for (let i = 0; i < unknown.gpus; i++) {
      const id = `${unknown.node} ?${into.gpus.length}`;
      const why = unknown.pod ? `held by ${podName(unknown)}; ${unknown.message}` : unknown.message;
      const cell = { id, node: unknown.node, device: null, slices: 7, finding: null, unknown: why };
      into.gpus.push({ id, cells: [cell] });
    }
  }
  return [...nodes.values()].sort((a, b) => a.name.localeCompare(b.name, "en"));
}

function podName(unknown: Unknown): string {
  return `${unknown.namespace}/${unknown.pod}`;
}

function whyUnknown(
  device: Device,
  pods: Map<string, Unknown>,
  now: string | null,
): string | null {
  if (now !== null && Date.parse(now) - Date.parse(device.at) > STALE_MS) {
    return `last measured at ${device.at}`;
  }
  if (device.activity === null) return "the exporter has no compute counter";
  // Of a shared GPU one known part is enough: its own reading is of the whole GPU.
  const [first] = device.holders;
  if (first === undefined || !device.holders.every((holder) => pods.has(holder))) return null;
  return pods.get(first)?.message ?? null;
}

/** GPUs of which nobody can say which of a node's pods they serve: they are not free. */
function markShared(nodes: Map<string, FleetNode>, status: Status): void {
  const shown = new Set(status.devices.flatMap((device) => device.holders));
  for (const unknown of status.unknown) {
    if (unknown.reason !== "SharedWithoutProcesses" || shown.has(podName(unknown))) continue;
    for (const gpu of nodes.get(unknown.node)?.gpus ?? []) {
      for (const cell of gpu.cells) {
        if (cell.device?.holders.length === 0) cell.unknown ??= unknown.message;
      }
    }
  }
}

/** Compute slices in a device such as `GPU-…/5 (2g.10gb)`. */
function slices(device: string): number {
  const match = /\((\d)g\./.exec(device);
  return match ? Number(match[1]) : 7;
}
