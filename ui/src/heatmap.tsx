import { useRef, useState } from "preact/hooks";
import type { Cell, FleetNode } from "./fleet";
import { percent } from "./format";

/** GPUs by node. One cell is in the tab order; arrow keys go on from there. */
export function Heatmap({ nodes, chosen, choose }: {
  nodes: FleetNode[];
  chosen: string | null;
  choose: (id: string | null) => void;
}) {
  const grid = useRef<HTMLDivElement>(null);
  const [hovered, setHovered] = useState<string | null>(null);
  const cells = nodes.flatMap((node) => node.gpus.flatMap((gpu) => gpu.cells));
  const current = cells.find((cell) => cell.id === chosen) ?? cells[0];
  const shown = cells.find((cell) => cell.id === hovered) ?? cells.find((c) => c.id === chosen);

  const onKeyDown = (event: KeyboardEvent) => {
    const at = cells.findIndex((cell) => cell.id === current?.id);
    const to = target(event.key, at, cells.length);
    if (to === null) return;
    event.preventDefault();
    const next = cells[to];
    if (!next) return;
    choose(next.id);
    const index = cells.indexOf(next);
    grid.current?.querySelectorAll<HTMLButtonElement>("button.cell")[index]?.focus();
  };

  return (
    <section aria-labelledby="fleet-title" class="panel">
      <div class="panel-head">
        <h2 id="fleet-title">GPUs by node</h2>
        <Legend />
      </div>
      <div class="nodes" ref={grid} onKeyDown={onKeyDown} role="group"
        aria-label="GPUs; arrow keys move between them">
        {nodes.map((node) => (
          <article class="node" key={node.name}>
            <h3>
              <span class="node-name">{node.name}</span>
              <span class="node-model">{node.model ?? "not measured"}</span>
            </h3>
            <div class="gpus">
              {node.gpus.map((gpu) => (
                <div class="gpu" key={gpu.id}>
                  {gpu.cells.map((cell) => (
                    <CellButton key={cell.id} cell={cell} current={cell === current}
                      choose={choose} hover={setHovered} />
                  ))}
                </div>
              ))}
            </div>
          </article>
        ))}
      </div>
      <p class="details" aria-live="polite">
        {shown ? <Details cell={shown} /> : "Point at a GPU, or go through them with the arrow keys."}
      </p>
    </section>
  );
}

/** Where a key leads from cell `at` of `count`; `null` for any other key. */
function target(key: string, at: number, count: number): number | null {
  switch (key) {
    case "ArrowRight":
    case "ArrowDown":
      return (at + 1) % count;
    case "ArrowLeft":
    case "ArrowUp":
      return (at - 1 + count) % count;
    case "Home":
      return 0;
    case "End":
      return count - 1;
    default:
      return null;
  }
}

function CellButton({ cell, current, choose, hover }: {
  cell: Cell;
  current: boolean;
  choose: (id: string | null) => void;
  hover: (id: string | null) => void;
}) {
  const activity = cell.unknown === null ? (cell.device?.activity ?? null) : null;
  const held = (cell.device?.holders.length ?? 0) > 0 || cell.finding !== null;
  const state = cell.unknown !== null ? "unknown" : held ? "held" : "free";
  // Ten steps, each a class: the page's security policy allows no style attribute.
  const step = state === "held" && activity !== null ? ` a${Math.min(10, Math.ceil(activity * 10))}` : "";
  const label = state === "unknown" ? "?" : state === "free" ? "" : Math.round((activity ?? 0) * 100);
  return (
    <button type="button" class={`cell ${state}${step}${cell.finding ? " waste" : ""} s${cell.slices}`}
      tabIndex={current ? 0 : -1} aria-label={describe(cell)}
      onFocus={() => choose(cell.id)} onMouseEnter={() => hover(cell.id)} onMouseLeave={() => hover(null)}>
      {label}
    </button>
  );
}

function describe(cell: Cell): string {
  const what = cell.unknown !== null ? `unknown: ${cell.unknown}`
    : cell.device && cell.device.holders.length > 0
      ? `${percent(cell.device.activity)} compute, held by ${cell.device.holders.join(", ")}`
      : "free";
  return `${cell.node}, ${what}${cell.finding ? `, ${cell.finding.kind.toLowerCase()}` : ""}`;
}

function Details({ cell }: { cell: Cell }) {
  const device = cell.device;
  if (!device) return <><strong>{cell.node}</strong> · not measured: {cell.unknown}</>;
  const parts = [
    cell.unknown !== null ? `unknown: ${cell.unknown}`
      : `${percent(device.activity)} ${device.activitySource ?? ""}`,
    device.fb === null ? null : `${percent(device.fb)} memory`,
    device.watts === null ? null : `${Math.round(device.watts)} W`,
    device.celsius === null ? null : `${device.celsius} °C`,
  ].filter((part) => part !== null);
  return (
    <>
      <strong>{cell.node}</strong> · {device.device}
      <br />
      {device.holders.length > 0 ? `held by ${device.holders.join(", ")}` : "free"} · {parts.join(" · ")}
      {cell.finding && <> · <span class="tag">{cell.finding.kind}</span></>}
    </>
  );
}

function Legend() {
  return (
    <ul class="legend" aria-label="Legend">
      <li><span class="scale" aria-hidden="true"><i class="a0" /><i class="a2" /><i class="a4" /><i class="a6" /><i class="a8" /><i class="a10" /></span> compute 0–100 %</li>
      <li><span class="swatch held waste" aria-hidden="true" /> wasteful pod</li>
      <li><span class="swatch free" aria-hidden="true" /> free</li>
      <li><span class="swatch unknown" aria-hidden="true" /> unknown</li>
    </ul>
  );
}
