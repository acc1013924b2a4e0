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
  for (const holder of device.holders) {
    const unknown = pods.get(holder);
    if (unknown) return unknown.message;
  }
  return null;
}

/** Compute slices in a device such as `GPU-…/5 (2g.10gb)`. */
function slices(device: string): number {
  const match = /\((\d)g\./.exec(device);
  return match ? Number(match[1]) : 7;
}
