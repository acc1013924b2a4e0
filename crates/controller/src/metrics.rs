//! What is exposed to Prometheus.
//!
//! Published names are kept, `controller_reconcile_*` among them.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use gpu_autoscaler_k8s::effects::Performed;
use gpu_autoscaler_model::{Action, Currency, Effect, Money, Rate, ReceiptResult, Timestamp, View};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::health::Health;

type Level = Gauge<f64, AtomicU64>;
type Sum = Counter<f64, AtomicU64>;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByKind {
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByOutcome {
    action: &'static str,
    result: &'static str,
}

/// All metrics of a controller.
pub struct Metrics {
    registry: Registry,
    reconcile_errors: Counter,
    reconcile_errors_published: Gauge,
    reconcile_duration: Histogram,
    reconcile_duration_published: Level,
    last_reconcile: Level,
    cluster_utilization: Level,
    pending_pods: Gauge,
    monthly_savings: Level,
    leader: Gauge,
    effects: Family<ByOutcome, Counter>,
    effects_dropped: Counter,
    write_wait: Sum,
    findings: Family<ByKind, Gauge>,
    gpus: Gauge,
    gpus_measured: Gauge,
    gpus_unknown: Gauge,
    samples: Counter,
    telemetry_failing: Gauge,
    telemetry_partial: Gauge,
    watch_objects: Family<ByKind, Gauge>,
    watch_malformed: Family<ByKind, Gauge>,
    watch_synced: Family<ByKind, Gauge>,
    watch_breaks: Family<ByKind, Counter>,
    watch_expired: Family<ByKind, Counter>,
    watch_lists: Family<ByKind, Counter>,
    /// Series whose value is not known are left out, and come back when it is.
    known: Mutex<Known>,
}

/// Which optional series have a value.
#[derive(Clone, Copy, Default)]
struct Known {
    utilization: bool,
    savings: bool,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at nothing.
    pub fn new() -> Self {
        let buckets = || exponential_buckets(0.01, 2.0, 10);
        let mut this = Self {
            registry: Registry::default(),
            reconcile_errors: Counter::default(),
            reconcile_errors_published: Gauge::default(),
            reconcile_duration: Histogram::new(buckets()),
            reconcile_duration_published: Level::default(),
            last_reconcile: Level::default(),
            cluster_utilization: Level::default(),
            pending_pods: Gauge::default(),
            monthly_savings: Level::default(),
            leader: Gauge::default(),
            effects: Family::default(),
            effects_dropped: Counter::default(),
            write_wait: Sum::default(),
            findings: Family::default(),
            gpus: Gauge::default(),
            gpus_measured: Gauge::default(),
            gpus_unknown: Gauge::default(),
            samples: Counter::default(),
            telemetry_failing: Gauge::default(),
            telemetry_partial: Gauge::default(),
            watch_objects: Family::default(),
            watch_malformed: Family::default(),
            watch_synced: Family::default(),
            watch_breaks: Family::default(),
            watch_expired: Family::default(),
            watch_lists: Family::default(),
            known: Mutex::default(),
        };
        this.register();
        this
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        macro_rules! add {
            ($($field:ident $name:literal $help:literal;)*) => {
                $(registry.register($name, $help, self.$field.clone());)*
            };
        }
        add! {
            reconcile_errors "gpu_autoscaler_reconcile_errors" "Effects that were refused or not answered";
            reconcile_errors_published "controller_reconcile_errors" "The same under its first published name";
            reconcile_duration "gpu_autoscaler_reconcile_duration_seconds" "Duration of a tick";
            reconcile_duration_published "controller_reconcile_duration" "Duration of the last tick in seconds";
            last_reconcile "gpu_autoscaler_last_reconcile_timestamp" "Unix time of the last tick in seconds";
            cluster_utilization "gpu_autoscaler_cluster_utilization" "Mean activity of measured GPUs, 0 to 1; absent while none is measured";
            pending_pods "gpu_autoscaler_pending_pods" "GPU pods that are not bound to a node";
            monthly_savings "gpu_autoscaler_estimated_monthly_savings_usd" "What standing findings would save in 720 hours; absent while not known";
            leader "gpu_autoscaler_leader" "1 while this replica leads";
            effects "gpu_autoscaler_effects" "Effects by what became of them";
            effects_dropped "gpu_autoscaler_effects_dropped" "Effects that found the queue full; they are decided again";
            write_wait "gpu_autoscaler_write_wait_seconds" "Time that effects waited for the write rate";
            findings "gpu_autoscaler_waste_findings" "Pods that waste GPUs";
            gpus "gpu_autoscaler_gpus" "Physical GPUs, where the node tells";
            gpus_measured "gpu_autoscaler_gpus_measured" "GPUs whose use is measured";
            gpus_unknown "gpu_autoscaler_gpus_unknown" "GPUs whose use is not known";
            samples "gpu_autoscaler_samples" "Samples taken in";
            telemetry_failing "gpu_autoscaler_telemetry_sources_failing" "Sources of telemetry that cannot be read";
            telemetry_partial "gpu_autoscaler_telemetry_sources_partial" "Sources of telemetry that answer in part";
            watch_objects "gpu_autoscaler_watch_objects" "Objects known of each kind";
            watch_malformed "gpu_autoscaler_watch_malformed_objects" "Objects that cannot be read";
            watch_synced "gpu_autoscaler_watch_synced" "1 when everything that exists was seen";
            watch_breaks "gpu_autoscaler_watch_breaks" "How often a watch broke";
            watch_expired "gpu_autoscaler_watch_expired" "How often the version to resume from had expired (410)";
            watch_lists "gpu_autoscaler_watch_lists" "How often everything was listed";
        }
    }

    /// A tick at `now` that took `took` and left `view`.
    pub fn tick(&self, now: Timestamp, took: Duration, view: &View) {
        self.reconcile_duration.observe(took.as_secs_f64());
        self.reconcile_duration_published.set(took.as_secs_f64());
        // Milliseconds since 1970 are far below 2^53.
        self.last_reconcile.set(now.as_millis() as f64 / 1000.0);
        let active: Vec<f64> =
            view.devices.iter().filter_map(|d| Some(d.activity?.ratio.as_f64())).collect();
        let known = Known {
            utilization: !active.is_empty(),
            savings: view.totals.saving.and_then(monthly_usd).is_some(),
        };
        if known.utilization {
            self.cluster_utilization.set(active.iter().sum::<f64>() / active.len() as f64);
        }
        if let Some(usd) = view.totals.saving.and_then(monthly_usd) {
            self.monthly_savings.set(usd);
        }
        *self.known.lock().expect("held for an assignment only") = known;
        let pending = view.pods.iter().filter(|pod| pod.node.is_none()).count();
        self.pending_pods.set(count(pending));
        for kind in gpu_autoscaler_model::FindingKind::ALL {
            let pods = view.findings.iter().filter(|finding| finding.kind == kind).count();
            let devices = view.hardware.iter().filter(|one| one.fault.kind() == kind).count();
            let found = pods + devices;
            self.findings.get_or_create(&ByKind { kind: kind.as_str() }).set(count(found));
        }
        self.gpus.set(view.totals.gpus.into());
        self.gpus_measured.set(view.totals.gpus_measured.into());
        self.gpus_unknown.set(view.unknown.iter().map(|unknown| i64::from(unknown.count)).sum());
    }

    /// Samples were taken in.
    pub fn samples(&self, count: usize) {
        self.samples.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
    }

    /// An effect was performed.
    pub fn effect(&self, effect: &Effect, performed: &Performed) {
        let action = match effect.action {
            Action::Announce(_) => "announce",
            Action::SetConditions { .. } => "set_conditions",
        };
        let result = match performed.receipt.result {
            ReceiptResult::Applied => "applied",
            ReceiptResult::AlreadyApplied => "already_applied",
            ReceiptResult::Conflict => "conflict",
            ReceiptResult::Gone => "gone",
            ReceiptResult::Refused { .. } => "refused",
            ReceiptResult::Unanswered { .. } => "unanswered",
        };
        self.effects.get_or_create(&ByOutcome { action, result }).inc();
        self.write_wait.inc_by(performed.waited.as_secs_f64());
        if matches!(result, "refused" | "unanswered") {
            self.reconcile_errors.inc();
            self.reconcile_errors_published.inc();
        }
    }

    /// An effect found the queue full.
    pub fn effect_dropped(&self) {
        self.effects_dropped.inc();
    }

    /// Takes over what is kept elsewhere.
    pub fn observe(&self, health: &Health) {
        self.leader.set(i64::from(health.leadership.may_write().is_some()));
        self.telemetry_failing.set(count(health.telemetry.borrow().failing.len()));
        self.telemetry_partial.set(count(health.telemetry.borrow().partial.len()));
        for (resource, watch) in &health.watches {
            let label = ByKind { kind: resource.kind().as_str() };
            let watch = watch.borrow();
            self.watch_objects.get_or_create(&label).set(count(watch.objects));
            self.watch_malformed.get_or_create(&label).set(count(watch.malformed));
            self.watch_synced.get_or_create(&label).set(i64::from(watch.synced));
            raise(&self.watch_breaks.get_or_create(&label), watch.breaks);
            raise(&self.watch_expired.get_or_create(&label), watch.expired);
            raise(&self.watch_lists.get_or_create(&label), watch.lists);
        }
    }

    /// In the OpenMetrics text format.
    pub fn text(&self) -> String {
        let mut encoded = String::new();
        text::encode(&mut encoded, &self.registry).expect("a string takes everything");
        let known = *self.known.lock().expect("held for an assignment only");
        let absent = [
            ("gpu_autoscaler_cluster_utilization ", known.utilization),
            ("gpu_autoscaler_estimated_monthly_savings_usd ", known.savings),
        ];
        let is_absent = |line: &str| absent.iter().any(|(name, k)| !k && line.starts_with(name));
        encoded.split_inclusive('\n').filter(|line| !is_absent(line)).collect()
    }
}

/// Raises `counter` to `value`; another process' worth of counting is never taken back.
fn raise(counter: &Counter, value: u64) {
    counter.inc_by(value.saturating_sub(counter.get()));
}

fn count(of: usize) -> i64 {
    i64::try_from(of).unwrap_or(i64::MAX)
}

/// A month of 720 hours in US dollars; `None` in any other currency.
fn monthly_usd(rate: Rate) -> Option<f64> {
    let month: Money = rate.monthly().filter(|month| month.currency() == Currency::USD)?;
    // Display only: the ledger keeps the integer.
    Some(month.as_nanos() as f64 / 1e9)
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn published_names_are_exposed_and_what_is_unknown_is_absent() {
        let metrics = Metrics::new();
        let view = View::default();
        metrics.tick(Timestamp::EPOCH, Duration::from_millis(30), &view);
        let text = metrics.text();
        for name in [
            "gpu_autoscaler_reconcile_errors_total 0",
            "gpu_autoscaler_reconcile_duration_seconds_bucket{le=\"0.04\"} 1",
            "gpu_autoscaler_last_reconcile_timestamp 0.0",
            "gpu_autoscaler_pending_pods 0",
            "controller_reconcile_errors 0",
            "controller_reconcile_duration 0.03",
            "gpu_autoscaler_waste_findings{kind=\"Idle\"} 0",
        ] {
            assert!(text.lines().any(|line| line == name), "{name} is not in\n{text}");
        }
        let absent = "gpu_autoscaler_cluster_utilization ";
        assert!(!text.lines().any(|line| line.starts_with(absent)), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }
}
