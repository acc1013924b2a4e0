//! `replay`: a recording, through the very loop that drives a live cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Args;
use gpu_autoscaler_controller::api::{Finding, Totals};
use gpu_autoscaler_k8s::dump;
use gpu_autoscaler_model::{
    Action, AnnouncedEvent, Change, Delta, EffectId, FindingKind, GpuSample, ObjectKey, PriceBook,
    Timestamp, Uid,
};
use gpu_autoscaler_reconciler::{Outcome, Policy, State, reconcile};
use serde::Serialize;

use crate::exit::Exit;
use crate::input::{self, Kind, shown};
use crate::output::{self, Format, OutputArgs, Rows, name, prose, word};
use crate::plan::{Planned, planned};
use crate::{fleet_table, gather};

/// Judgements of the longest recording: a year of every 30 s.
const TICKS_MAX: u64 = 1_100_000;

/// Arguments of `replay`.
#[derive(Args)]
#[command(after_help = "\
A recording is a dump, and samples with their times:
  kubectl get nodes,pods,pdb -A -o yaml > dump.yaml
  curl -s http://127.0.0.1:9090/api/v1/query \\
    --data-urlencode 'query={__name__=~\"DCGM_FI_.*\"}[6h]' > samples.json
  gpu-autoscaler replay dump.yaml samples.json
Exposition text counts as well where its lines have timestamps. The objects are taken to have been
as they are in the dump all the time, from their creation on. Equal recordings give equal output.")]
pub struct ReplayArgs {
    /// Dumps, saved answers of Prometheus, and exposition text, told apart by what they hold.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// A price sheet: CSV with instance_type,region,capacity_type,price_per_hour,currency.
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

/// What happened, as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Replay {
    /// The form of this object: `gpu-autoscaler.io/replay/v1`.
    schema: &'static str,
    /// The first sample, RFC 3339.
    from: String,
    /// The last sample, RFC 3339.
    to: String,
    ticks: u64,
    samples: usize,
    /// Samples of hosts that are no node of the dump, and of pods that are not in it.
    samples_unplaced: u64,
    /// A hash over every decision, in order: two replays with the same value decided the same.
    digest: String,
    changes: Vec<Happened>,
    /// What stands at the end.
    totals: Totals,
    findings: Vec<Finding>,
}

/// A change of what stands.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Happened {
    /// When, RFC 3339.
    at: String,
    /// `found`, `cleared`, or what the controller would do: `Event`, `Condition`.
    what: &'static str,
    /// The object.
    object: String,
    /// Kind of finding, or reason of the effect.
    reason: String,
    /// In words.
    message: String,
}

/// Reads, replays, prints.
pub fn run(args: &ReplayArgs) -> Result<Exit> {
    let mut policy = Policy::published();
    if let Some(file) = &args.prices {
        let text = input::read_utf8(file)?;
        let book = PriceBook::with_sheet(&text).with_context(|| format!("read {}", shown(file)))?;
        policy.prices = Arc::new(book);
    }
    let (mut objects, mut samples, mut faults) = (Delta::default(), Vec::new(), Vec::new());
    for file in &args.files {
        let text = input::read_bytes(file)?;
        match input::kind_of(&text) {
            Kind::Dump => {
                let read = dump::parse(&text).with_context(|| format!("read {}", shown(file)))?;
                faults.extend(read.faults.iter().map(ToString::to_string));
                objects.append(read.delta);
            }
            Kind::Metrics | Kind::Answer => {
                samples.extend(gather::read_metrics(file, &text, Timestamp::EPOCH)?);
            }
        }
    }
    for fault in &faults {
        eprintln!("warning: left out: {fault}");
    }
    check(&objects, &samples)?;
    let replay = replay(objects, samples, &policy)?;
    let text = match args.output.format {
        Format::Json => output::json(&replay)?,
        Format::Yaml => output::yaml(&replay)?,
        Format::Csv => replay.rows().csv()?,
        Format::Table | Format::Wide | Format::Summary => replay.text(args.output.format),
    };
    output::print(&text)?;
    Ok(if faults.is_empty() { Exit::Done } else { Exit::Partly })
}

fn check(objects: &Delta, samples: &[GpuSample]) -> Result<()> {
    if objects.nodes.is_empty() {
        bail!("the recording has no nodes; add `kubectl get nodes,pods,pdb -A -o yaml`");
    }
    if samples.is_empty() {
        bail!("the recording has no samples; `gpu-autoscaler replay --help` says how to save some");
    }
    if samples.iter().any(|sample| sample.at == Timestamp::EPOCH) {
        bail!("some samples have no time; use `gpu-autoscaler plan` for a single instant");
    }
    Ok(())
}

/// Drives the loop from the first sample to the last, and answers its effects as a cluster would.
fn replay(objects: Delta, mut samples: Vec<GpuSample>, policy: &Policy) -> Result<Replay> {
    samples.sort_by_key(|sample| sample.at);
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else {
        bail!("the recording has no samples");
    };
    let (from, to) = (first.at, last.at);
    let ticks = to.since(from).as_secs() / policy.judge_every.as_secs().max(1) + 1;
    if ticks > TICKS_MAX {
        bail!("the recording is of {ticks} judgements, from {from} to {to}; at most {TICKS_MAX}");
    }
    let count = samples.len();
    let mut tape = Tape::default();
    let mut state = State::new();
    let mut seen = objects;
    let mut samples = samples.into_iter().peekable();
    let mut now = from;
    let outcome = loop {
        while let Some(sample) = samples.next_if(|sample| sample.at <= now) {
            seen.samples.push(sample);
        }
        let outcome = reconcile(now, &mut state, &seen, policy);
        seen = tape.note(now, &outcome);
        if now >= to {
            break outcome;
        }
        now = now.after(policy.judge_every).min(to);
    };
    Ok(Replay {
        schema: "gpu-autoscaler.io/replay/v1",
        from: from.to_string(),
        to: to.to_string(),
        ticks: tape.ticks,
        samples: count,
        samples_unplaced: tape.unplaced,
        digest: tape.digest.to_string(),
        changes: tape.changes,
        totals: (&outcome.view.totals).into(),
        findings: outcome.view.findings.iter().map(Finding::from).collect(),
    })
}

/// What is written down while the loop runs.
struct Tape {
    ticks: u64,
    unplaced: u64,
    digest: EffectId,
    /// Nobody answers here, so that the loop asks for the same again.
    asked: BTreeSet<EffectId>,
    standing: BTreeMap<(ObjectKey, FindingKind), String>,
    changes: Vec<Happened>,
}

impl Default for Tape {
    fn default() -> Self {
        let (asked, standing, changes) = (BTreeSet::new(), BTreeMap::new(), Vec::new());
        Self { ticks: 0, unplaced: 0, digest: EffectId::of(&[]), asked, standing, changes }
    }
}

impl Tape {
    /// Notes what one tick decided; gives what a cluster would show of it next.
    fn note(&mut self, now: Timestamp, outcome: &Outcome) -> Delta {
        self.ticks += 1;
        self.unplaced += u64::from(outcome.report.samples_unplaced);
        let mut next = Delta::default();
        for effect in &outcome.effects {
            if !self.asked.insert(effect.id) {
                continue;
            }
            for Planned { kind, object, reason, message } in planned(effect) {
                self.push(now, kind, object, reason, message);
            }
            if let Action::Announce(event) = &effect.action {
                next.events.push(Change::Upsert(AnnouncedEvent {
                    uid: Uid::from(event.event.to_string()),
                    key: event.event.clone(),
                    at: Some(event.at),
                }));
            }
        }
        let standing = outcome.view.findings.iter().map(|finding| {
            let shown = Finding::from(finding);
            ((finding.pod.clone(), finding.kind), fleet_table::in_words(&shown))
        });
        let standing: BTreeMap<_, _> = standing.collect();
        let before = std::mem::replace(&mut self.standing, standing.clone());
        for ((pod, kind), words) in &standing {
            if !before.contains_key(&(pod.clone(), *kind)) {
                self.push(now, "found", pod.to_string(), kind.to_string(), words.clone());
            }
        }
        for ((pod, kind), _) in before {
            if !standing.contains_key(&(pod.clone(), kind)) {
                let words = "no longer so".to_owned();
                self.push(now, "cleared", pod.to_string(), kind.to_string(), words);
            }
        }
        next
    }

    fn push(
        &mut self,
        at: Timestamp,
        what: &'static str,
        object: String,
        reason: String,
        message: String,
    ) {
        let at = at.to_string();
        self.digest = EffectId::of(&[&self.digest.to_string(), &at, what, &object, &reason]);
        self.changes.push(Happened { at, what, object, reason, message });
    }
}

impl Replay {
    fn rows(&self) -> Rows {
        let row = |one: &Happened| {
            let what = one.what.to_owned();
            vec![one.at.clone(), what, one.object.clone(), one.reason.clone(), one.message.clone()]
        };
        Rows {
            columns: vec![word("AT"), word("WHAT"), name("OBJECT"), word("REASON"), prose("WHY")],
            rows: self.changes.iter().map(row).collect(),
        }
    }

    fn text(&self, format: Format) -> String {
        let width = output::width().unwrap_or(100).max(40);
        let mut text = format!("=== Replay, {} to {} ===\n", self.from, self.to);
        if format != Format::Summary {
            for one in &self.changes {
                let head = format!("{}  {:<8}  {} {}", one.at, one.what, one.object, one.reason);
                text.push_str(&format!("{head}\n"));
                text.push_str(&output::wrapped("    ", &one.message, width));
            }
            if !self.findings.is_empty() {
                text.push_str("\n=== At the end ===\n");
                text.push_str(&fleet_table::findings(&self.findings, format).text(format));
            }
        }
        text.push_str("\n=== Summary ===\n");
        text.push_str(&fleet_table::totals(&self.totals));
        text.push_str(&format!(
            "Judgements:       {}\nSamples:          {}, {} of no node that is known\n\
             Changes:          {}\nDigest:           {}\n",
            self.ticks,
            self.samples,
            self.samples_unplaced,
            self.changes.len(),
            self.digest
        ));
        text
    }
}
