import { useState } from "preact/hooks";
import { ago, money, percent } from "./format";
import type { Finding, Status } from "./status";

interface Column {
  id: string;
  title: string;
  number: boolean;
  /** What it is sorted by: larger first for numbers, alphabetical for text. */
  by: (finding: Finding) => number | string;
}

const COLUMNS: Column[] = [
  { id: "kind", title: "Kind", number: false, by: (f) => f.kind },
  { id: "pod", title: "Pod", number: false, by: (f) => `${f.namespace}/${f.pod}` },
  { id: "node", title: "Node", number: false, by: (f) => f.node },
  { id: "gpus", title: "GPUs", number: true, by: (f) => f.devices.length },
  { id: "compute", title: "Compute", number: true, by: (f) => f.usage?.activityMean ?? -1 },
  { id: "memory", title: "Memory", number: true, by: (f) => f.usage?.fbMean ?? -1 },
  { id: "score", title: "Score", number: true, by: (f) => f.score.total },
  { id: "since", title: "For", number: true, by: (f) => -Date.parse(f.since) },
  { id: "saves", title: "Saves/h", number: true, by: (f) => Number(f.savingPerHour?.amount ?? -1) },
];

/** Findings at first, more on request: the worst ones are what one comes for. */
const SHOWN = 25;

export function Findings({ status, choose }: { status: Status; choose: (id: string) => void }) {
  const [sort, setSort] = useState({ id: "saves", descending: true });
  const [namespace, setNamespace] = useState("");
  const [all, setAll] = useState(false);
  const namespaces = [...new Set(status.findings.map((f) => f.namespace))].sort();
  const column = COLUMNS.find((column) => column.id === sort.id);
  const rows = status.findings.filter((f) => namespace === "" || f.namespace === namespace);
  if (column) {
    const sign = sort.descending ? -1 : 1;
    rows.sort((a, b) => {
      const [x, y] = [column.by(a), column.by(b)];
      return sign * (x < y ? -1 : x > y ? 1 : 0) || (a.uid < b.uid ? -1 : 1);
    });
  }
  const press = (column: Column) =>
    setSort({ id: column.id, descending: sort.id === column.id ? !sort.descending : column.number });
  return (
    <section aria-labelledby="waste-title" class="panel">
      <div class="panel-head">
        <h2 id="waste-title">Waste</h2>
        <label class="filter">
          Namespace{" "}
          <select value={namespace} onChange={(event) => setNamespace(event.currentTarget.value)}>
            <option value="">all</option>
            {namespaces.map((name) => <option key={name} value={name}>{name}</option>)}
          </select>
        </label>
      </div>
      {rows.length === 0 ? <p class="empty">No pod wastes its GPUs.</p> : (
        <div class="scroll" role="region" aria-label="Table of waste" tabIndex={0}>
          <table class="waste-table">
            <thead>
              <tr>
                {COLUMNS.map((column) => (
                  <th key={column.id} scope="col" class={column.number ? "number" : ""}
                    aria-sort={sort.id !== column.id ? "none" : sort.descending ? "descending" : "ascending"}>
                    <button type="button" onClick={() => press(column)}>{column.title}</button>
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {rows.slice(0, all ? rows.length : SHOWN).map((f) => (
                <tr key={`${f.uid} ${f.kind}`}>
                  <td><span class={`tag ${f.kind.toLowerCase()}`} title={f.stuck ?? undefined}>{f.kind}</span></td>
                  <td class="pod"><span class="muted">{f.namespace}/</span>{f.pod}</td>
                  <td>
                    <button type="button" class="link"
                      onClick={() => choose(`${f.node} ${f.devices[0] ?? ""}`)}>{f.node}</button>
                  </td>
                  <td class="number">{f.devices.length}</td>
                  <td class="number" title={f.usage?.activitySource}>{percent(f.usage?.activityMean ?? null)}</td>
                  <td class="number">{percent(f.usage?.fbMean ?? null)}</td>
                  <td class="number">{Math.round(f.score.total)}</td>
                  <td class="number">{status.at ? ago(f.since, status.at) : "–"}</td>
                  <td class="number">{money(f.savingPerHour)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {rows.length > SHOWN && (
        <button type="button" class="more" onClick={() => setAll(!all)}>
          {all ? "Show fewer" : `Show all ${rows.length}`}
        </button>
      )}
    </section>
  );
}

export function Unknowns({ status }: { status: Status }) {
  const groups = new Map<string, { node: string; gpus: number; pods: string[]; message: string }>();
  for (const unknown of status.unknown) {
    const key = `${unknown.node} ${unknown.reason}`;
    let group = groups.get(key);
    if (!group) {
      groups.set(key, (group = { node: unknown.node, gpus: 0, pods: [], message: unknown.message }));
    }
    group.gpus += unknown.gpus;
    if (unknown.pod !== null) group.pods.push(`${unknown.namespace}/${unknown.pod}`);
  }
  const rows = [...groups.values()];
  return (
    <section aria-labelledby="unknown-title" class="panel">
      <div class="panel-head">
        <h2 id="unknown-title">Unknown</h2>
        <p class="muted">Not measured is neither idle nor busy: nobody is accused.</p>
      </div>
      {rows.length === 0 ? <p class="empty">Every GPU is measured.</p> : (
        <div class="scroll" role="region" aria-label="Table of unknown GPUs" tabIndex={0}>
          <table>
            <thead>
              <tr>
                <th scope="col">Node</th>
                <th scope="col" class="number">GPUs</th>
                <th scope="col">Why</th>
                <th scope="col">Pods</th>
              </tr>
            </thead>
            <tbody>
              {rows.map((row) => (
                <tr key={`${row.node} ${row.message}`}>
                  <td>{row.node}</td>
                  <td class="number">{row.gpus}</td>
                  <td>{row.message}</td>
                  <td class="pods">{row.pods.length === 0 ? "–" : row.pods.join(", ")}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </section>
  );
}
