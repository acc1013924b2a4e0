import { render } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { fleet, kinds } from "./fleet";
import { instant, money, monthly } from "./format";
import { Heatmap } from "./heatmap";
import type { Status } from "./status";
import { Findings, Unknowns } from "./tables";

/** From one question to the server to the next. */
const PERIOD_MS = 1000;

function App() {
  const [status, setStatus] = useState<Status | null>(null);
  const [fault, setFault] = useState<string | null>(null);
  const [paused, setPaused] = useState(false);
  const [chosen, setChosen] = useState<string | null>(null);
  const generation = useRef(-1);

  useEffect(() => {
    if (paused) return;
    const ask = new AbortController();
    let timer: ReturnType<typeof setTimeout>;
    const turn = async () => {
      try {
        const answer = await fetch("api/v1/status", { signal: ask.signal, cache: "no-store" });
        if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
        const next = (await answer.json()) as Status;
        setFault(null);
        if (next.generation !== generation.current) {
          generation.current = next.generation;
          setStatus(next);
        }
      } catch (error) {
        if (ask.signal.aborted) return;
        setFault(error instanceof Error ? error.message : String(error));
      }
      timer = setTimeout(turn, PERIOD_MS);
    };
    void turn();
    return () => {
      ask.abort();
      clearTimeout(timer);
    };
  }, [paused]);

  const nodes = useMemo(() => (status ? fleet(status) : []), [status]);
  const point = (id: string) => {
    setChosen(id);
    document.getElementById("fleet-title")?.scrollIntoView({ block: "start" });
  };
  return (
    <>
      <header>
        <h1><img src="icon.svg" alt="" width="24" height="24" /> GPU Autoscaler</h1>
        <p class="clock" role="status">
          {fault !== null ? <span class="fault">no answer from the server ({fault}); what is shown may be old</span>
            : status?.at ? <>judged at <time dateTime={status.at}>{instant(status.at)}</time></>
            : "waiting for the first judgement"}
        </p>
        <button type="button" aria-pressed={paused} onClick={() => setPaused(!paused)}>
          {paused ? "Go on" : "Pause"}
        </button>
      </header>
      {status && status.at && (
        <main>
          <Totals status={status} />
          <Heatmap nodes={nodes} chosen={chosen} choose={setChosen} />
          <Findings status={status} choose={point} />
          <Unknowns status={status} />
        </main>
      )}
    </>
  );
}

function Totals({ status }: { status: Status }) {
  const { totals } = status;
  const unknown = totals.gpus - totals.gpusMeasured;
  const unpriced = (count: number, what: string) =>
    count > 0 ? `${count} ${what}${count === 1 ? "" : "s"} without a known price` : null;
  return (
    <dl class="totals">
      <Total name="GPUs" value={totals.gpus}
        note={`${totals.gpuNodes} nodes${unknown > 0 ? `, ${unknown} unknown` : ", all measured"}`} />
      <Total name="Requested" value={totals.gpusRequested} note="GPUs, slices and parts" />
      <Total name="Wasteful pods" value={status.findings.length}
        note={kinds(status.findings)} />
      <Total name="Cost per hour" value={money(totals.costPerHour)}
        note={unpriced(totals.nodesUnpriced, "node") ?? `${monthly(totals.costPerHour)} in 720 h`} />
      <Total name="Could save per hour" value={money(totals.savingPerHour)} strong
        note={[`${monthly(totals.savingPerHour)} in 720 h`, unpriced(totals.findingsUnpriced, "finding")]
          .filter((part) => part !== null).join("; ")} />
    </dl>
  );
}

function Total({ name, value, note, strong }: {
  name: string;
  value: number | string;
  note: string;
  strong?: boolean;
}) {
  return (
    <div class={strong ? "total strong" : "total"}>
      <dt>{name}</dt>
      <dd class="value">{value}</dd>
      <dd class="note">{note}</dd>
    </div>
  );
}

const root = document.getElementById("app");
if (root) render(<App />, root);
