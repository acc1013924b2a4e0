//! Whether the controller is alive and ready, and what is missing where it is not.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use gpu_autoscaler_k8s::election::Leadership;
use gpu_autoscaler_k8s::watch::{Resource, WatchHealth};
use gpu_autoscaler_model::Fault;
use gpu_autoscaler_store::Writer;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::backfill::Standing;

/// Longest pause of the loop that is taken for life. It beats at least every [`BEAT`].
const STALL_MAX: Duration = Duration::from_secs(60);

/// How often the loop beats when it has nothing else to do.
pub const BEAT: Duration = Duration::from_secs(5);

/// How long a write that was refused or not answered is told of: until it has been tried again, if
/// it is still wanted. The longest pause between two attempts is a minute.
pub const FAILED_TOLD: Duration = Duration::from_secs(70);

/// Longest description of a fault, in characters.
const FAULT_CHARS_MAX: usize = 300;

/// How telemetry is doing: nothing before the first answer, then each source that fails.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TelemetryHealth {
    /// Whether every source was asked at least once.
    pub asked: bool,
    /// Sources that could not be read the last time, and why.
    pub failing: Vec<(Arc<str>, Arc<str>)>,
    /// Sources that answered in part the last time, and what is missing. What they lack is not
    /// known, which is no reason to refuse what is.
    pub partial: Vec<(Arc<str>, Arc<str>)>,
    /// Sources in all.
    pub sources: usize,
}

/// What the probes look at.
#[derive(Debug)]
pub struct Health {
    began: Instant,
    /// Milliseconds after `began`.
    last_beat: AtomicU64,
    ticks: AtomicU64,
    pub(crate) watches: Vec<(Resource, watch::Receiver<WatchHealth>)>,
    pub(crate) telemetry: watch::Receiver<TelemetryHealth>,
    writes: watch::Receiver<WriteHealth>,
    pub(crate) leadership: Leadership,
    history: OnceLock<Arc<Writer>>,
    backfill: OnceLock<watch::Receiver<Standing>>,
}

impl Health {
    /// Of a controller with these parts.
    pub fn new(
        watches: Vec<(Resource, watch::Receiver<WatchHealth>)>,
        telemetry: watch::Receiver<TelemetryHealth>,
        writes: watch::Receiver<WriteHealth>,
        leadership: Leadership,
    ) -> Self {
        let began = Instant::now();
        let (last_beat, ticks) = (AtomicU64::new(0), AtomicU64::new(0));
        Self {
            began,
            last_beat,
            ticks,
            watches,
            telemetry,
            writes,
            leadership,
            history: OnceLock::new(),
            backfill: OnceLock::new(),
        }
    }

    /// Looks at `history` as well from now on.
    pub(crate) fn keep_history(&self, history: Arc<Writer>) {
        // It is told once, when the controller is put together.
        let _ = self.history.set(history);
    }

    /// Looks at `backfill` as well from now on.
    pub(crate) fn watch_backfill(&self, backfill: watch::Receiver<Standing>) {
        // As above.
        let _ = self.backfill.set(backfill);
    }

    /// Records of the history that cannot be and were left out.
    pub(crate) fn history_unreadable(&self) -> usize {
        self.history.get().map_or(0, |history| history.standing().unreadable)
    }

    /// How reading back the past is going; nothing where it is not read back.
    pub(crate) fn backfill(&self) -> Standing {
        self.backfill.get().map(|backfill| backfill.borrow().clone()).unwrap_or_default()
    }

    /// Whether what was kept of the past was read, or cannot be, or nothing is kept.
    pub(crate) fn history_tried(&self) -> bool {
        self.history.get().is_none_or(|history| history.standing().tried)
    }

    /// Whether what is learned is kept; nothing where it is not meant to be.
    pub(crate) fn history_works(&self) -> Option<bool> {
        self.history.get().map(|history| history.standing().error.is_none())
    }

    fn history_fault(&self) -> Option<String> {
        Some(clip(&self.history.get()?.standing().error?))
    }

    /// The loop is alive.
    pub fn beat(&self) {
        let millis = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_beat.store(millis, Ordering::Relaxed);
    }

    /// The loop has completed a tick.
    pub fn ticked(&self) {
        self.ticks.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether everything that exists was seen once.
    pub fn synced(&self) -> bool {
        self.watches.iter().all(|(_, health)| health.borrow().synced)
    }

    /// Whether the loop moves, and the answer of `/healthz`.
    pub fn alive(&self) -> (bool, String) {
        let beat = self.began + Duration::from_millis(self.last_beat.load(Ordering::Relaxed));
        let stall = beat.elapsed();
        if stall <= STALL_MAX {
            (true, "ok\n".to_owned())
        } else {
            (false, format!("the loop has not moved for {} s\n", stall.as_secs()))
        }
    }

    /// Whether the view can be relied upon, and the answer of `/readyz`, a line for each part.
    pub fn ready(&self) -> (bool, String) {
        let (mut good, mut text) = (true, String::new());
        for Part { name, fault } in self.parts() {
            let _ = match &fault {
                None => writeln!(text, "[+] {name} ok"),
                Some(fault) => writeln!(text, "[-] {name}: {fault}"),
            };
            good &= fault.is_none();
        }
        for (target, lacking) in &self.telemetry.borrow().partial {
            let _ = writeln!(text, "[!] telemetry of {target}: {}", clip(lacking));
        }
        if let Some(fault) = self.history_fault() {
            // What is learned is kept in memory meanwhile: no reason to refuse what is known.
            let _ = writeln!(text, "[!] history: {fault}");
        }
        if let count @ 1.. = self.history_unreadable() {
            let _ = writeln!(text, "[!] history: {count} records cannot be and were left out");
        }
        let backfill = self.backfill();
        if let Some(extent) = backfill.extent {
            let _ = writeln!(text, "[+] backfill: the past is read back {extent}");
        }
        if let Some(why) = backfill.error {
            // What is measured now is judged without it.
            let _ = writeln!(text, "[!] backfill: the past is not read back: {}", clip(&why));
        }
        (good, text)
    }

    /// Everything that has to work, and why it does not.
    pub fn parts(&self) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::new();
        let mut part = |name: &str, fault: Option<String>| {
            parts.push(Part { name: name.to_owned(), fault: fault.map(|fault| clip(&fault)) });
        };
        for (resource, health) in &self.watches {
            part(&format!("watch of {resource}"), watch_fault(&health.borrow()));
        }
        part("telemetry", telemetry_fault(&self.telemetry.borrow()));
        let ticks = self.ticks.load(Ordering::Relaxed);
        part("loop", (ticks == 0).then(|| "no tick yet".to_owned()));
        part("lease", self.leadership.standing().error);
        part("writes", self.writes.borrow().fault());
        parts
    }
}

impl Health {
    /// What does not work now, sorted; the loop itself is told of by whoever asks in vain.
    pub fn faults(&self) -> Vec<Fault> {
        let parts = self.parts().into_iter().filter(|part| part.name != "loop");
        let faults = parts
            .filter_map(|part| Some(Fault { part: part.name.into(), why: part.fault?.into() }));
        let mut faults: Vec<Fault> = faults.collect();
        let history = self.history_fault();
        faults.extend(history.map(|why| Fault { part: "history".into(), why: why.into() }));
        faults.sort();
        faults
    }
}

/// Something that has to work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its name, of a closed set.
    pub name: String,
    /// Why it does not work.
    pub fault: Option<String>,
}

/// How the last writes to the cluster went.
#[derive(Clone, Debug, Default)]
pub struct WriteHealth {
    /// Kinds of action of which the last one failed, until when that is told, and why. Apart,
    /// because a condition that can be written says nothing about Events that cannot.
    pub failed: BTreeMap<&'static str, (Instant, Arc<str>)>,
}

impl WriteHealth {
    /// Nothing for a failure so old that, were it still wanted, the write would have been tried
    /// again.
    fn fault(&self) -> Option<String> {
        let now = Instant::now();
        let mut failed = self.failed.iter().filter(|(_, (until, _))| now < *until);
        failed.next().map(|(action, (_, why))| format!("the last `{action}` failed: {why}"))
    }
}

fn watch_fault(health: &WatchHealth) -> Option<String> {
    match &health.error {
        Some(error) => Some(error.to_string()),
        None if health.absent => Some(
            "the API server does not know this kind; apply the CustomResourceDefinitions of the \
             chart: charts/gpu-autoscaler/crds"
                .to_owned(),
        ),
        None if !health.synced => Some("not listed yet".to_owned()),
        None => None,
    }
}

fn telemetry_fault(telemetry: &TelemetryHealth) -> Option<String> {
    if telemetry.sources == 0 {
        return Some("no source: set --prometheus-url or --exporter".to_owned());
    }
    if !telemetry.asked {
        return Some("not read yet".to_owned());
    }
    let (target, why) = telemetry.failing.first()?;
    let (failing, all) = (telemetry.failing.len(), telemetry.sources);
    Some(format!("{failing} of {all} sources cannot be read, {target} first: {why}"))
}

/// On one line and short enough for a condition.
fn clip(fault: &str) -> String {
    let mut line = fault.replace('\n', " ");
    if let Some((at, _)) = line.char_indices().nth(FAULT_CHARS_MAX) {
        line.truncate(at);
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests;
